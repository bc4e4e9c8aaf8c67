"""Block stores that all backends of this process share: RocksDB lets a process open one once."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from kvloop.shared_cache.backends.aibrix.block_store import BlockStore
from kvloop.shared_cache.backends.aibrix.config import AibrixConfig


@dataclass(slots=True)
class _Shared:
    store: BlockStore
    num_users: int


_lock = threading.Lock()
_stores: dict[tuple[Path, str, str], _Shared] = {}


class StoreUse:
    """One user's part in a store; closed with its last user's."""

    def __init__(self, config: AibrixConfig, name: str, block_bytes: int, num_tokens: int) -> None:
        """Raise StorageUnavailable where it cannot be opened."""
        self._key = (config.path, name, f"{config.layout}{num_tokens}")
        with _lock:
            shared = _stores.get(self._key)
            if shared is None:
                shared = _Shared(BlockStore(config, name, block_bytes, num_tokens), 0)
                _stores[self._key] = shared
            shared.num_users += 1
            self.store = shared.store

    def close(self) -> None:
        """Give the store back; once."""
        with _lock:
            shared = _stores[self._key]
            shared.num_users -= 1
            if not shared.num_users:
                del _stores[self._key]
                shared.store.close()

"""The shared cache of a running loop, checked and thinned out from outside by the store tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hicache_loop import SHAPE
from loop_client import Answer
from page_files import published

from kvloop.shared_cache.keys import cache_seed, page_keys
from kvloop.shared_cache.store_tools.address import StoreAddress
from kvloop.shared_cache.store_tools.evicting import evict
from kvloop.shared_cache.store_tools.open_store import OpenStore
from kvloop.shared_cache.store_tools.reading import staging_pool
from kvloop.shared_cache.store_tools.verifying import verify

PAGE = SHAPE.page_size
_DEADLINE_S = 60.0


class L3:
    """The directory of a file cache, of the small fp32 model's one namespace."""

    def __init__(self, root: Path, namespace: str) -> None:
        self.root, self.namespace = root, bytes.fromhex(namespace)

    def keys(self) -> set[bytes]:
        """Of all pages that can be read."""
        return {page.key for page in published(self.root) if page.namespace == self.namespace}

    def check(self) -> set[bytes]:
        """The same, after every page was read and its trailer and payload checked."""
        keys = sorted(self.keys())
        with self._open() as store:
            report = verify(store, keys, advance=lambda *_: None)
        assert not report.bad and sum(report.num_good.values()) == len(keys), report
        return set(keys)

    def evict(self, keys: Sequence[bytes]) -> None:
        """Take pages away, as a store that is short of room does."""
        with self._open() as store:
            assert evict(store, keys, lambda _: None) == len(keys)

    def _open(self) -> OpenStore:
        address = StoreAddress(backend="file", config={"root": str(self.root)})
        return OpenStore(address, staging_pool(SHAPE), self.namespace, _DEADLINE_S)


def chain_of(answer: Answer, salt: str | None = None) -> list[bytes]:
    """Keys of all full pages of a finished turn: its last token has no KV."""
    return page_keys(answer.history[:-1], PAGE, cache_seed(None, salt))


def leading(keys: Sequence[bytes], there: set[bytes]) -> int:
    """Pages that the next turn can find."""
    return next((index for index, key in enumerate(keys) if key not in there), len(keys))

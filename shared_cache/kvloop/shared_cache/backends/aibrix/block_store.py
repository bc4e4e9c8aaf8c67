"""One cache manager of AIBrix's: blocks of one length under hashes, moved without a copy of ours.

AIBrix counts in tokens. A block is `block_tokens` of them, and a call of n blocks that answers
m tokens has done m // block_tokens: of a get that is how many blocks were found, not which.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import gcd
from pathlib import Path
from typing import Any

from kvloop.shared_cache.backends.aibrix.config import AibrixConfig, BlockLayout
from kvloop.shared_cache.backends.aibrix.library import aibrix_environment, load_aibrix
from kvloop.shared_cache.storage_errors import StorageUnavailable


def block_tokens(page_size: int, block_bytes: int) -> int:
    """Tokens that AIBrix is told a block has: a page's where they part the block evenly.

    Its blocks are 2 (K and V) * tokens * layers * heads * head size; MLA has no other form. A page
    object, trailer included, is told as one layer and one head of whatever size fits.
    """
    return gcd(page_size, block_bytes // 2)


class BlockStore:
    """Thread-safe; calls block for as long as the store does. Raises StorageUnavailable."""

    def __init__(self, config: AibrixConfig, name: str, block_bytes: int, num_tokens: int) -> None:
        """Raise StorageUnavailable where the store cannot be opened."""
        assert block_bytes % (2 * num_tokens) == 0, (block_bytes, num_tokens)
        self.block_bytes = block_bytes
        self.num_tokens = num_tokens
        self._library = load_aibrix(config.l2_cache_backend)
        with aibrix_environment(config.environment(name, num_tokens)):
            self._spec = self._block_spec(config.layout)
            # max_num_batched_tokens sizes the library's own pool, which is not used
            model = self._library.ModelSpec(1 << 20, max_num_batched_tokens=num_tokens)
            self._manager = _opened(self._library, self._library.KVCacheConfig(self._spec, model))

    def _block_spec(self, layout: BlockLayout) -> Any:
        library, torch = self._library, importlib.import_module("torch")
        size = self.block_bytes // (2 * self.num_tokens)
        tensor = library.KVCacheTensorSpec(heads=[0], layers=[0], head_size=size)
        layouts = library.KVCacheBlockLayout
        return library.KVCacheBlockSpec(self.num_tokens, torch.uint8, layouts[layout], tensor)

    def leading_run(self, hashes: Sequence[str]) -> int:
        """How many of the first blocks are stored."""
        return self._blocks(self._manager.exists(None, self._keys(hashes)), "exists")

    def has(self, block: str) -> bool:
        """Whether one block is stored; on this thread, since a hop to the library's costs more."""
        connector = self._manager._l2_cache._backend
        return bool(connector._exists(block.encode()).is_ok())

    def get(self, hashes: Sequence[str], slab: Any, offsets: Sequence[int]) -> int:
        """How many of the blocks were read to `offsets` in `slab`, a flat uint8 tensor."""
        with self._handle(slab, offsets) as handle:
            return self._blocks(self._manager.get(None, self._keys(hashes), handle), "get")

    def put(self, hashes: Sequence[str], slab: Any, offsets: Sequence[int]) -> int:
        """How many of the first blocks were stored; raises where the library does."""
        with self._handle(slab, offsets) as handle:
            return self._blocks(self._manager.put(None, self._keys(hashes), handle), "put")

    def lead_out(self, hashes: Sequence[str]) -> bool:
        """Whether a symlink lies where the library would write: it follows all (SHFS)."""
        connector = self._manager._l2_cache._backend
        if not hasattr(connector, "_key_to_filepath"):
            return False
        root = connector.root_path
        return any(
            os.path.islink(path)
            for block in hashes
            for path in _written(connector._key_to_filepath(block.encode()), root)
        )

    def delete(self, hashes: Sequence[str]) -> None:
        """Remove blocks, whether they are there or not."""
        status = self._manager.delete(None, self._keys(hashes))
        if not status.is_ok():
            raise StorageUnavailable(f"storage backend 'aibrix': delete failed: {status.value}")

    def hashes(self) -> Iterator[str]:
        """Of all blocks; with ROCKSDB only."""
        database = self._manager._l2_cache._backend.store  # the library lists nothing
        yield from (key.decode() for key in database.keys())  # noqa: SIM118 - no dict

    def close(self) -> None:
        """End its threads, and let go of the store."""
        _close(self._manager)

    def _keys(self, hashes: Sequence[str]) -> Any:
        return self._library.BlockHashes(list(hashes), self.num_tokens)

    def _blocks(self, status: Any, call: str) -> int:
        if status.is_ok():
            return int(status.value) // self.num_tokens
        if status.is_not_found():
            return 0
        raise StorageUnavailable(
            f"storage backend 'aibrix': {call} failed: {status.error_code.name}: {status.value}"
        )

    @contextmanager
    def _handle(self, slab: Any, offsets: Sequence[int]) -> Iterator[Any]:
        """Memory of ours as the library's; what it does not release is released here."""
        library = self._library
        regions = [library.ExternalMemoryRegion(slab, at, self.block_bytes) for at in offsets]
        spec = self._spec
        try:
            yield library.MemoryRegionKVCacheHandle(spec.block_dtype, spec.block_shape, regions)
        finally:
            for region in regions:
                if region.ref_count:
                    region.ref_down()


def _written(file: Path, root: Path) -> list[Path]:
    """What the library's put of this file goes through."""
    above = file.parents[: len(file.relative_to(root).parts)]
    return [file.with_suffix(file.suffix + ".tmp"), *above]


def _opened(library: Any, config: Any) -> Any:
    """A manager; one that cannot open leaves no threads behind."""
    manager = library.BaseKVCacheManager.__new__(library.BaseKVCacheManager)
    try:
        manager.__init__(config)
    except Exception as error:
        _close(manager)
        raise StorageUnavailable(f"storage backend 'aibrix': cannot open: {error}") from error
    return manager


def _close(manager: Any) -> None:
    loop = getattr(manager, "_event_loop", None)
    thread = getattr(manager, "_thread", None)
    with suppress(Exception):  # half made, some of it is missing
        manager.close()
    if loop is not None and (thread is None or not thread.is_alive()):
        loop.close()  # the library leaves its descriptors open

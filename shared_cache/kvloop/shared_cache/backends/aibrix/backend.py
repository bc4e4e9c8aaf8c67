"""Pages as blocks of AIBrix's KV cache: see `folders` for names and `block_store` for calls."""

from __future__ import annotations

import hashlib
import importlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.backends.aibrix.block_store import BlockStore, block_tokens
from kvloop.shared_cache.backends.aibrix.config import AibrixConfig
from kvloop.shared_cache.backends.aibrix.folders import (
    LOCKS,
    block_hashes,
    has_folder,
    pages_name,
    records_name,
)
from kvloop.shared_cache.backends.aibrix.inventory import clear_namespace, listed
from kvloop.shared_cache.backends.aibrix.key_locks import KeyLocks
from kvloop.shared_cache.backends.aibrix.shared_stores import StoreUse
from kvloop.shared_cache.backends.fixed_record import (
    LONGEST_VALUE,
    RECORD_BYTES,
    decode_record,
    encode_record,
)
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.workers import Workers

_Part = Callable[[BlockStore, Sequence[bytes], Sequence[int]], list[bool]]
_SPARE_BYTES = 1 << 20  # a file system with less is full


class AibrixBackend(StorageBackend):
    """See the module.

    A batch is parted among this backend's threads, and each part is one call of the library. Where
    that has not done all of it, which pages it did is found out page by page.
    """

    def __init__(self, config: AibrixConfig, pool: HostPool, namespace: bytes) -> None:
        """Raise StorageUnavailable where the root cannot be made, or is another process's."""
        self._config = config
        self._pool = pool
        self._namespace = namespace
        self._root = config.path
        self._locks = KeyLocks(self._root / LOCKS)
        self._slab = importlib.import_module("torch").from_numpy(pool.array.reshape(-1))
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        names = ("reads", "writes", "no_room", "refused", "misfits", "failed_writes")
        self._stats = dict.fromkeys(names, 0.0)
        self._uses: dict[str, StoreUse] = {}
        self._require_mount()
        with _faults_of_the_store():
            self._root.mkdir(parents=True, exist_ok=True)
        self._pages(False)  # where another process holds it, opening is what fails
        self._threads = Workers(config.num_threads, "l3-aibrix")

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        store = self._pages(False)
        if store is None or not keys:
            return [False] * len(keys)
        groups = self._pool.shape.head_groups
        blocks = [block for key in keys for block in block_hashes(key, groups)]
        run = store.leading_run(blocks) // groups
        rest = keys[run + 1 :]  # the page after the run is the one that is missing
        found = [True] * run + [False] * (run < len(keys))
        return found + [all(map(store.has, block_hashes(key, groups))) for key in rest]

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        store = self._pages(False)
        if store is None:
            return [False] * len(keys)
        with _faults_of_the_store():
            found = self._parted(self._read_part, store, keys, slots)
        self._count("reads", sum(found))
        return found

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        store = self._pages(True) if keys else None
        if store is None:
            return []
        with _faults_of_the_store():
            stored = self._parted(self._write_part, store, keys, slots)
        self._count("writes", sum(stored))
        return stored

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        store = self._pages(False)
        if store is None:
            return [False] * len(keys)
        with _faults_of_the_store():
            return self._threads.map(self._remove, [store] * len(keys), keys)

    def put_small(self, name: str, value: bytes) -> bool:
        if len(value) > LONGEST_VALUE:
            self._count("no_room", 1)
            return False
        store, block = self._records(True), _record_hash(name)
        assert store is not None
        if store.lead_out([block]):
            self._count("refused", 1)
            return False
        record = _flat_tensor(encode_record(value))
        with _faults_of_the_store(), self._locks.hold([block]):
            return self._put(store, [block], record, [0])

    def get_small(self, name: str) -> bytes | None:
        store = self._records(False)
        if store is None:
            return None
        record = _flat_tensor(bytes(RECORD_BYTES))
        if not store.get([_record_hash(name)], record, [0]):
            return None
        return decode_record(record.numpy().tobytes())

    def stats(self) -> dict[str, float]:
        with self._lock:
            return dict(self._stats)

    def objects(self) -> Iterator[StoredObject]:
        with _faults_of_the_store():
            yield from listed(self._config)

    def clear(self) -> None:
        with _faults_of_the_store():
            clear_namespace(self._config, self._namespace)

    def probe(self) -> None:
        self._require_root()
        super().probe()

    def close(self) -> None:
        self._threads.stop()
        for use in self._uses.values():
            use.close()

    # --- part of a batch, on a thread -------------------------------------------------------------

    def _parted(
        self, work: _Part, store: BlockStore, keys: Sequence[bytes], slots: Sequence[int]
    ) -> list[bool]:
        length = -(-len(keys) // self._config.num_threads) or 1
        parts = [slice(start, start + length) for start in range(0, len(keys), length)]
        done = self._threads.map(
            work, [store] * len(parts), [keys[part] for part in parts], [slots[p] for p in parts]
        )
        return [is_done for part in done for is_done in part]

    def _read_part(
        self, store: BlockStore, keys: Sequence[bytes], slots: Sequence[int]
    ) -> list[bool]:
        blocks = [block for key in keys for block in self._blocks(key)]
        offsets = [offset for slot in slots for offset in self._offsets(slot)]
        if len(keys) > 1 and store.get(blocks, self._slab, offsets) == len(blocks):
            return [True] * len(keys)
        return [self._read(store, key, slot) for key, slot in zip(keys, slots, strict=True)]

    def _write_part(
        self, store: BlockStore, keys: Sequence[bytes], slots: Sequence[int]
    ) -> list[bool]:
        blocks = [block for key in keys for block in self._blocks(key)]
        if len(keys) > 1 and not store.lead_out(blocks) and self._write(store, keys, slots):
            return [True] * len(keys)
        return [self._write_page(store, key, slot) for key, slot in zip(keys, slots, strict=True)]

    def _write_page(self, store: BlockStore, key: bytes, slot: int) -> bool:
        if store.lead_out(self._blocks(key)):
            self._count("refused", 1)
            return False
        is_stored = self._write(store, [key], [slot])
        self._count("no_room", not is_stored)
        return is_stored

    def _read(self, store: BlockStore, key: bytes, slot: int) -> bool:
        blocks, offsets = self._blocks(key), self._offsets(slot)
        if store.get(blocks, self._slab, offsets) == len(blocks):
            return True
        if any(map(store.has, blocks)):
            # suppressed: who may not write here cannot repair, and reads on
            with suppress(OSError), self._locks.hold([key.hex()]):  # it may be on its way just now
                return self._read_or_repair(store, blocks, offsets)
        return False

    def _read_or_repair(self, store: BlockStore, blocks: list[str], offsets: list[int]) -> bool:
        """Blocks that are there and cannot be read are in the way: the first put wins."""
        bad = [
            block
            for block, offset in zip(blocks, offsets, strict=True)
            if not store.get([block], self._slab, [offset])
        ]
        misfits = [block for block in bad if store.has(block)]
        if misfits:
            store.delete(misfits)
            self._count("misfits", len(misfits))
        return not bad

    def _write(self, store: BlockStore, keys: Sequence[bytes], slots: Sequence[int]) -> bool:
        """Whether all are stored; of what is there already nothing is written."""
        blocks = [block for key in keys for block in self._blocks(key)]
        offsets = [offset for slot in slots for offset in self._offsets(slot)]
        with self._locks.hold(key.hex() for key in keys):
            missing: dict[str, int] = {}
            for block, offset in zip(blocks, offsets, strict=True):
                if block not in missing and not store.has(block):
                    missing[block] = offset
            values = list(missing.values())
            return not missing or self._put(store, list(missing), self._slab, values)

    def _put(self, store: BlockStore, blocks: list[str], slab: object, offsets: list[int]) -> bool:
        """False where there is no room."""
        self._require_root()
        try:
            return store.put(blocks, slab, offsets) == len(blocks)
        except Exception as error:
            self._count("failed_writes", 1)
            if not self._is_full(error):
                raise StorageUnavailable(
                    f"storage backend 'aibrix': put failed: {error!r}"
                ) from error
            return False

    def _remove(self, store: BlockStore, key: bytes) -> bool:
        blocks = self._blocks(key)
        with self._locks.hold([key.hex()]):
            there = [block for block in blocks if store.has(block)]
            if there:
                store.delete(there)
        return bool(there)

    def _blocks(self, key: bytes) -> list[str]:
        return block_hashes(key, self._pool.shape.head_groups)

    def _offsets(self, slot: int) -> list[int]:
        groups = range(self._pool.shape.head_groups)
        return [self._pool.address(slot, group) - self._pool.base_address for group in groups]

    # --- stores of blocks -------------------------------------------------------------------------

    def _pages(self, is_for_writing: bool) -> BlockStore | None:
        """None where there is none yet, and opening would make one."""
        shape = self._pool.shape
        name = pages_name(self._namespace, shape.object_bytes)
        num_tokens = block_tokens(shape.page_size, shape.object_bytes)
        return self._store(name, shape.object_bytes, num_tokens, is_for_writing)

    def _records(self, is_for_writing: bool) -> BlockStore | None:
        return self._store(records_name(self._namespace), RECORD_BYTES, 1, is_for_writing)

    def _store(
        self, name: str, block_bytes: int, num_tokens: int, is_for_writing: bool
    ) -> BlockStore | None:
        self._require_root()
        with self._opening:
            use = self._uses.get(name)
            if use is None:
                with _faults_of_the_store():
                    is_there = has_folder(self._root, name)
                if not is_there and not is_for_writing:
                    return None
                use = StoreUse(self._config, name, block_bytes, num_tokens)
                self._uses[name] = use
            return use.store

    def _require_root(self) -> None:
        """A mount that went away must not look like an empty store, nor be written under."""
        self._require_mount()
        if not self._root.is_dir():
            raise StorageUnavailable(f"storage backend 'aibrix': {self._root} is no directory")

    def _require_mount(self) -> None:
        mount_point = self._config.mount_point
        if mount_point is not None and not os.path.ismount(mount_point):
            raise StorageUnavailable(
                f"storage backend 'aibrix': nothing is mounted at {mount_point}"
            )

    def _is_full(self, error: Exception) -> bool:
        """The library does not say why a file could not be written."""
        free = os.statvfs(self._root)
        room = free.f_bavail * free.f_frsize
        wanted = self._pool.shape.slot_bytes + _SPARE_BYTES
        return "No space left" in str(error) or room < wanted or free.f_favail == 0

    def _count(self, name: str, n: int) -> None:
        with self._lock:
            self._stats[name] += n


@contextmanager
def _faults_of_the_store() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(f"storage backend 'aibrix': {error}") from error


def _record_hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _flat_tensor(data: bytes) -> Any:
    torch = importlib.import_module("torch")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)

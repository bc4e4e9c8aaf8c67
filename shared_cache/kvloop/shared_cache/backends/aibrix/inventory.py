"""All that a store holds, listed and removed: what AIBrix's library has no call for.

Files of SHFS are walked and unlinked here; the keys of RocksDB are read from its database.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from kvloop.shared_cache.backend import StoredObject
from kvloop.shared_cache.backends.aibrix.block_store import BlockStore
from kvloop.shared_cache.backends.aibrix.config import AibrixConfig
from kvloop.shared_cache.backends.aibrix.folders import (
    Folder,
    block_of_file,
    files,
    folders,
    stored_object,
)
from kvloop.shared_cache.backends.aibrix.shared_stores import StoreUse
from kvloop.shared_cache.backends.fixed_record import RECORD_BYTES


def listed(config: AibrixConfig) -> Iterator[StoredObject]:
    """Objects of all namespaces; raises OSError, or StorageUnavailable where another process holds
    a database."""
    for folder in folders(config.path):
        if config.l2_cache_backend == "ROCKSDB":
            with _borrowed(config, folder) as store:
                for block in store.hashes():
                    yield stored_object(folder, block, store.block_bytes, None)
        else:
            yield from _listed_files(folder)


def clear_namespace(config: AibrixConfig, namespace: bytes) -> None:
    """Remove its pages and records; raises as `listed` does."""
    for folder in folders(config.path):
        if folder.namespace != namespace:
            continue
        if config.l2_cache_backend == "ROCKSDB":
            with _borrowed(config, folder) as store:
                for block in list(store.hashes()):
                    store.delete([block])
        else:
            for path in files(folder):
                path.unlink(missing_ok=True)


def _listed_files(folder: Folder) -> Iterator[StoredObject]:
    for path in files(folder):
        block = block_of_file(path)
        if block is None:
            continue
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        yield stored_object(folder, block, status.st_size, status.st_mtime)


@contextmanager
def _borrowed(config: AibrixConfig, folder: Folder) -> Iterator[BlockStore]:
    """The database of any namespace, open for as long as this lasts."""
    config = msgspec.structs.replace(config, layout=folder.layout)
    block_bytes = folder.block_bytes or RECORD_BYTES
    use = StoreUse(config, folder.name, block_bytes, folder.num_tokens)
    try:
        yield use.store
    finally:
        use.close()

"""Which account a store has: by its capacity, and by what its file system can."""

from __future__ import annotations

from kvloop.shared_cache.backends.directory.account import Account, NoAccount
from kvloop.shared_cache.backends.directory.file_system import file_system_type, is_local
from kvloop.shared_cache.backends.directory.index_account import IndexAccount
from kvloop.shared_cache.backends.directory.index_file import IndexFile
from kvloop.shared_cache.backends.directory.layout import INDEX
from kvloop.shared_cache.backends.directory.root import StoreRoot
from kvloop.shared_cache.backends.directory.walk_account import WalkAccount


def account_of(root: StoreRoot, capacity_bytes: int | None) -> Account:
    """Makes nothing, and reads no more than whether there is an index.

    An index that is there is kept up by processes without a bound too: tools remove and write.
    """
    if is_local(file_system_type(root.path)):
        path = root.path / INDEX
        if capacity_bytes is not None or path.exists():
            return IndexAccount(root, IndexFile(path), capacity_bytes)
    elif capacity_bytes is not None:
        return WalkAccount(root, capacity_bytes)
    return NoAccount()

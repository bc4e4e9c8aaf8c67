"""What a storage backend raises when it is at fault itself; a missing page is no error.

StorageError(KVLoopError)
├── StorageUnavailable   the backend may work again later: unreachable, stalled, an I/O error
├── StorageRejected      the backend will not do this however often it is asked
└── StorageUnsupported   the backend has no such operation
"""

from kvloop.shared_cache.errors import KVLoopError


class StorageError(KVLoopError):
    """A storage backend failed."""


class StorageUnavailable(StorageError):
    """The backend does not work now; retry later, on a fresh connection."""


class StorageRejected(StorageError):
    """The backend refuses; retrying the same is useless."""


class StorageUnsupported(StorageError):
    """This kind of store cannot do that."""

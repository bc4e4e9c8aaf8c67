"""Pages of about 1 MiB, put into real Mooncake stores by a backend opened as a node does it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.factory import open_backend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

SHAPE = PageShape(num_layers=4, page_size=64, num_kv_heads=8, head_size=64, itemsize=4)
NAMESPACE = b"n" * 32


class Client:
    """A backend of its own, with a slot to write from and one to read into."""

    def __init__(self, config: dict[str, object], namespace: bytes = NAMESPACE) -> None:
        self.pool = HostPool(SHAPE, 2)
        slots = self.pool.alloc(2)
        assert slots is not None
        self._source, self._target = slots
        self.backend: StorageBackend = open_backend("mooncake", config, self.pool, namespace)

    def put(self, n: int) -> list[bytes]:
        """Keys of new pages, of those that were stored; each holds its key."""
        keys = [secrets.token_bytes(32) for _ in range(n)]
        return [key for key in keys if self.put_one(key)]

    def put_one(self, key: bytes) -> bool:
        self.pool.view(self._source)[:] = key * (SHAPE.slot_bytes // 32)
        return self.backend.set([key], [self._source]) == [True]

    def read(self, key: bytes) -> bool:
        """Whether it is there; fails where its bytes are others."""
        self.pool.view(self._target)[:] = bytes(SHAPE.slot_bytes)
        if self.backend.get([key], [self._target]) == [False]:
            return False
        assert bytes(self.pool.view(self._target)) == key * (SHAPE.slot_bytes // 32)
        return True

    def readable(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those that are there."""
        return [key for key in keys if self.read(key)]


@contextlib.contextmanager
def client(
    config: dict[str, object], namespace: bytes = NAMESPACE, **fields: object
) -> Iterator[Client]:
    """Closed at the end."""
    opened = Client({**config, **fields}, namespace)
    try:
        yield opened
    finally:
        opened.backend.close()

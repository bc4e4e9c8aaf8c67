"""A small host pool and pages of random bytes for tests of the backend `nixl`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.factory import backend_opener, open_backend
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore

SHAPE = PageShape(
    num_layers=2, page_size=16, num_kv_heads=4, head_size=16, itemsize=2, head_groups=2
)


class Pages:
    """One namespace, and slots to write from and to read into."""

    def __init__(self, num_slots: int = 24, shape: PageShape = SHAPE) -> None:
        self.namespace = secrets.token_bytes(32)
        self.pool = HostPool(shape, num_slots)

    def open(self, config: Mapping[str, Any]) -> StorageBackend:
        return open_backend("nixl", config, self.pool, self.namespace)

    def page_store(self, config: Mapping[str, Any]) -> PageStore:
        """Behind the guard, with short times; opened when this returns."""
        guard = GuardedBackend(
            backend_opener("nixl", config, self.pool, self.namespace),
            self.pool,
            name="nixl",
            namespace=self.namespace,
            config=GuardConfig(deadline_s=2.0, first_retry_s=0.05, max_retry_s=0.2, check_s=0.3),
        )
        assert guard.wait_attached(20), guard.status()
        return PageStore(guard, self.pool, namespace=self.namespace, writer="decode")

    def keys(self, n: int) -> list[bytes]:
        return [secrets.token_bytes(32) for _ in range(n)]

    def filled(self, n: int) -> list[int]:
        slots = self.blank(n)
        for slot in slots:
            self.pool.view(slot)[:] = os.urandom(self.pool.shape.slot_bytes)
        return slots

    def blank(self, n: int) -> list[int]:
        slots = self.pool.alloc(n)
        assert slots is not None
        for slot in slots:
            self.pool.view(slot)[:] = bytes(self.pool.shape.slot_bytes)
        return slots

    def are_equal(self, slots: list[int], others: list[int]) -> bool:
        pairs = zip(slots, others, strict=True)
        return all(bytes(self.pool.view(a)) == bytes(self.pool.view(b)) for a, b in pairs)

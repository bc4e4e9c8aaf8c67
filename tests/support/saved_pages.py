"""Pages with known content that go through a PageStore to a backend behind a valve."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from guards import take
from memory_backend import MemoryBackend, Valve, eventually

from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.hicache_names import HostLayout
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.wire import Role

SHAPE = PageShape(
    num_layers=2, page_size=4, num_kv_heads=2, head_size=8, itemsize=2, head_groups=2, codec="int8"
)
NAMESPACE = b"n" * 32
KEYS = [bytes([i + 1]) * 32 for i in range(6)]


class Place(NamedTuple):
    """The pool whose slots callers have, and the one whose slots the backend has."""

    pool: HostPool
    staging: HostPool | None

    @property
    def objects(self) -> HostPool:
        return self.staging or self.pool


def make_place(layout: HostLayout, num_staging: int = 8) -> Place:
    is_direct = layout == "page_first_direct"
    return Place(HostPool(SHAPE, 12, layout), None if is_direct else HostPool(SHAPE, num_staging))


def open_store(valve: Valve, place: Place, writer: Role) -> PageStore:
    guard = GuardedBackend(
        lambda: MemoryBackend(valve, place.objects),
        place.objects,
        name="memory",
        namespace=NAMESPACE,
        config=GuardConfig(deadline_s=0.1, first_retry_s=0.02, max_retry_s=0.1),
    )
    assert guard.wait_attached(5)
    pool, staging = place
    return PageStore(guard, pool, namespace=NAMESPACE, writer=writer, staging=staging)


def fill(pool: HostPool, slot: int, value: int) -> None:
    for group in range(SHAPE.head_groups):
        pool.payload(group)[slot] = value + group
        scales = pool.scales(group)
        assert scales is not None
        scales[slot] = value * 0.5 + group


def holds(pool: HostPool, slot: int, value: int) -> bool:
    for group in range(SHAPE.head_groups):
        scales = pool.scales(group)
        assert scales is not None
        if not (pool.payload(group)[slot] == value + group).all():
            return False
        if not (scales[slot] == np.float32(value * 0.5 + group)).all():
            return False
    return True


def save(store: PageStore, pool: HostPool, keys: list[bytes]) -> None:
    slots = take(pool, len(keys))
    for key, slot in zip(keys, slots, strict=True):
        fill(pool, slot, key[0])
    assert store.save(keys, slots) == [True] * len(keys)
    for key, slot in zip(keys, slots, strict=True):
        assert holds(pool, slot, key[0])
    pool.free(slots)


def load(store: PageStore, pool: HostPool, keys: list[bytes]) -> list[Role | None]:
    """Load into fresh slots, check what came, and give the slots back."""
    slots = take(pool, len(keys))
    for slot in slots:
        fill(pool, slot, 99)
    writers = store.load(keys, slots)
    for key, slot, writer in zip(keys, slots, writers, strict=True):
        assert writer is None or holds(pool, slot, key[0])
    pool.free(slots)
    return writers


def is_all_free(place: Place) -> bool:
    return all(pool is None or pool.num_free == pool.num_slots for pool in place)


def wait_until_all_free(place: Place) -> None:
    assert eventually(lambda: is_all_free(place))


def counted(store: PageStore) -> dict[tuple[str, str], int]:
    return {key: n for key, n in store.counters.snapshot().pages.items() if n}

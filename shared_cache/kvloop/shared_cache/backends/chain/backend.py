"""A near store before a far one: read-through, write-through, promotion on hit.

The far store is the truth that all nodes share: a page is stored once it is there, and records
are its. The near one is a cache of it that may be lost, full or down at any time. Each is behind a
guard of its own, so that a fault or a stall of one costs what only it has, and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from kvloop.shared_cache.backend import BackendOpener, StorageBackend, StoredObject
from kvloop.shared_cache.backends.chain.config import ChainConfig
from kvloop.shared_cache.backends.chain.promoter import Promoter
from kvloop.shared_cache.backends.chain.tier import Tier
from kvloop.shared_cache.backends.chain.union import either, listed_once, rest_of
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.workers import Workers

_OPEN_S = 10.0
_NUM_THREADS = 4  # writes to the near store, each beside one to the far store


class ChainBackend(StorageBackend):
    """See the module."""

    def __init__(
        self,
        config: ChainConfig,
        near: BackendOpener,
        far: BackendOpener,
        pool: HostPool,
        namespace: bytes,
    ) -> None:
        """Raise StorageUnavailable where neither store is there; one of them is enough."""
        self._near = Tier(
            near, pool, name="near", namespace=namespace, deadline_s=config.near_deadline_s
        )
        self._far = Tier(
            far, pool, name="far", namespace=namespace, deadline_s=config.far_deadline_s
        )
        self._near_deadline_s = config.near_deadline_s
        self._promote = config.promote
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("near_hits", "far_hits", "near_stalled_pages"), 0.0)
        self._require_one()
        self._threads = Workers(_NUM_THREADS, "l3-chain")
        self._promoter = Promoter(self._near, pool, namespace, config.promote_queue_pages)

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        near = self._near.exists(keys)
        rest = rest_of(near, len(keys))
        far = self._far.exists([keys[i] for i in rest])
        return self._answer(near, rest, far)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        near = self._near.get(keys, slots)
        if near is None and self._near.is_using(slots):
            # A late write to a slot that the far store has filled could not be told from its own.
            self._count("near_stalled_pages", len(keys))
            return [False] * len(keys)
        rest = rest_of(near, len(keys))
        rest_keys, rest_slots = [keys[i] for i in rest], [slots[i] for i in rest]
        far = self._far.get(rest_keys, rest_slots)
        self._count("near_hits", sum(near or ()))
        self._count("far_hits", sum(far or ()))
        if self._promote and far:
            hits = [i for i, is_found in enumerate(far) if is_found]
            self._promoter.offer([rest_keys[i] for i in hits], [rest_slots[i] for i in hits])
        return self._answer(near, rest, far)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        near = self._threads.submit(self._near.set, keys, slots)
        far = self._far.set(keys, slots)
        if near.result() is None and far is None:
            raise self._neither()
        return [False] * len(keys) if far is None else far

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        """Where one store is down, a page that it has stays there."""
        self._promoter.forget(frozenset(keys), self._near_deadline_s)
        near, far = self._near.delete(keys), self._far.delete(keys)
        if near is None and far is None:
            raise self._neither()
        return either(near, far)

    def put_small(self, name: str, value: bytes) -> bool:
        is_stored = self._far.put_small(name, value)
        if is_stored:
            self._near.put_small(name, value)
        return is_stored

    def get_small(self, name: str) -> bytes | None:
        """While the far store is down, what the near one has, which may be of old."""
        record = self._far.get_small(name) or self._near.get_small(name)
        if record is None:
            raise self._neither()
        return record.value

    def stats(self) -> dict[str, float]:
        with self._lock:
            stats = self._counts | self._promoter.stats()
        for tier in (self._near, self._far):
            stats |= {f"{tier.name}_{name}": value for name, value in tier.stats().items()}
        return stats

    def clear(self) -> None:
        """Raise StorageUnavailable where a store may have kept something."""
        self._promoter.forget(None, self._near_deadline_s)
        is_cleared = {tier.name: tier.clear() for tier in (self._near, self._far)}
        if left := [name for name, is_done in is_cleared.items() if not is_done]:
            raise StorageUnavailable(f"storage backend 'chain': {left[0]} was not cleared")

    def close(self) -> None:
        self._promoter.close()
        self._threads.stop()
        self._near.close()
        self._far.close()

    def objects(self) -> Iterator[StoredObject]:
        """What either has; records as the far store lists them."""
        return listed_once(self._far.objects(), self._near.objects())

    def _require_one(self) -> None:
        until = time.monotonic() + _OPEN_S
        for tier in (self._near, self._far):
            tier.wait_settled(max(0.0, until - time.monotonic()))
        if not self._near.is_up and not self._far.is_up:
            error = self._neither()
            self._near.close()
            self._far.close()
            raise error

    def _answer(
        self, near: list[bool] | None, rest: Sequence[int], far: list[bool] | None
    ) -> list[bool]:
        if near is None and far is None:
            raise self._neither()
        answer = list(near) if near is not None else [False] * len(rest)
        for i, is_found in zip(rest, far or [False] * len(rest), strict=True):
            answer[i] = is_found
        return answer

    def _neither(self) -> StorageUnavailable:
        reasons = [f"{tier.name}: {tier.last_error}" for tier in (self._near, self._far)]
        return StorageUnavailable(f"storage backend 'chain': no answer; {'; '.join(reasons)}")

    def _count(self, name: str, n: int) -> None:
        with self._lock:
            self._counts[name] += n

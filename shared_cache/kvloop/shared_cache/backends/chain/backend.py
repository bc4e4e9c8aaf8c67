"""A near store before a far one: read-through, write-through, promotion on hit.

The far store is the truth that all nodes share: a page is stored once it is there, and records
are its. The near one is a cache of it that may be lost, full or down at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.backends.chain.config import ChainConfig
from kvloop.shared_cache.backends.chain.promoter import Promoter
from kvloop.shared_cache.backends.chain.tier import Tier
from kvloop.shared_cache.backends.chain.two_tiers import TwoTiers
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.workers import Workers

_NUM_THREADS = 4  # writes to the near store, each beside one to the far store


class ChainBackend(TwoTiers):
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
        deadlines = (("near", near, config.near_deadline_s), ("far", far, config.far_deadline_s))
        tiers = [
            Tier(opener, pool, name=name, namespace=namespace, deadline_s=deadline_s)
            for name, opener, deadline_s in deadlines
        ]
        super().__init__("chain", *tiers)
        self._near, self._far = tiers
        self._threads = Workers(_NUM_THREADS, "l3-chain")
        if config.promote:
            self._promoter = Promoter(self._near, pool, namespace, config.promote_queue_pages)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        """True once the far store has the page, whatever became of it in the near one."""
        near = self._threads.submit(self._near.set, keys, slots)
        far = self._far.set(keys, slots)
        if near.result() is None and far is None:
            raise self._neither()
        return [False] * len(keys) if far is None else far

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

    def close(self) -> None:
        self._threads.stop()
        super().close()

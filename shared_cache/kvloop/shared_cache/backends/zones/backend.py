"""An edge site's store before the central one: the site goes on alone while the link is down.

Reads ask the local store, then the central one. A write is done once it is in the local store;
the page is then sent to the central one in the background, by way of an outbox that is kept in
the local store, and so survives the process and the longest failure of the link.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kvloop.shared_cache.backend import BackendOpener, StoredObject
from kvloop.shared_cache.backends.chain.promoter import Promoter
from kvloop.shared_cache.backends.chain.tier import Tier
from kvloop.shared_cache.backends.chain.two_tiers import TwoTiers
from kvloop.shared_cache.backends.chain.union import listed_once
from kvloop.shared_cache.backends.zones.config import ZonesConfig
from kvloop.shared_cache.backends.zones.journal import Journal
from kvloop.shared_cache.backends.zones.outbox import Outbox
from kvloop.shared_cache.backends.zones.sender import Sender
from kvloop.shared_cache.host_pool import HostPool

_LOCAL_RECORDS = {"epoch"}  # tells whether the local store has lost its content: its own
_DROP_S = 1.0


class Openers(NamedTuple):
    """Of the two stores, over one pool."""

    local: BackendOpener
    central: BackendOpener


class ZonesBackend(TwoTiers):
    """See the module."""

    def __init__(
        self,
        config: ZonesConfig,
        callers: Openers,
        senders: Openers,
        pool: HostPool,
        staging: HostPool,
        namespace: bytes,
    ) -> None:
        """`callers` opens over `pool`, `senders` over `staging`.

        Raises StorageUnavailable where neither store is there; one of them is enough.
        """

        def tiers(openers: Openers, over: HostPool) -> tuple[Tier, Tier]:
            deadlines = (config.local_deadline_s, config.central_deadline_s)
            local, central = (
                Tier(opener, over, name=name, namespace=namespace, deadline_s=deadline_s)
                for name, opener, deadline_s in zip(
                    Openers._fields, openers, deadlines, strict=True
                )
            )
            return local, central

        self._local, self._central = tiers(callers, pool)
        super().__init__("zones", self._local, self._central)
        self._journal = Journal(self._local, config.zone, config.outbox_pages, config.lease_s)
        self._sender = Sender(
            lambda: tiers(senders, staging),
            staging,
            namespace,
            Outbox(config.outbox_pages),
            self._journal,
            config.lease_s,
        )
        if config.keep:
            self._promoter = Promoter(self._local, pool, namespace, config.keep_queue_pages)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        """True once the local store has the page, or the central one where that has no room."""
        answer = self._local.set(keys, slots)
        stored = answer or [False] * len(keys)
        self._sender.add([key for key, is_kept in zip(keys, stored, strict=True) if is_kept])
        rest = [i for i, is_kept in enumerate(stored) if not is_kept]
        direct = self._central.set([keys[i] for i in rest], [slots[i] for i in rest])
        return self._answer(answer, rest, direct)

    def put_small(self, name: str, value: bytes) -> bool:
        """Local at once, and central in the background."""
        is_stored = self._local.put_small(name, value)
        if name in _LOCAL_RECORDS:
            return is_stored
        if is_stored:
            self._sender.add_record(name, value)
            return True
        return self._central.put_small(name, value)

    def get_small(self, name: str) -> bytes | None:
        """The local store's, else the central one's."""
        local = self._local.get_small(name)
        if local is not None and (local.value is not None or name in _LOCAL_RECORDS):
            return local.value
        central = self._central.get_small(name)
        if local is None and central is None:
            raise self._neither()
        if central is None or name in _LOCAL_RECORDS:
            return None
        return central.value

    def stats(self) -> dict[str, float]:
        """`central_up` is the link's state, `backlog` the pages that wait for it."""
        return super().stats() | self._sender.stats()

    def clear(self) -> None:
        """Raise StorageUnavailable where a store may have kept something, as with a dead link."""
        try:
            super().clear()
        finally:
            self._journal.reset()  # the node begins a new outbox with its next page

    def objects(self) -> Iterator[StoredObject]:
        """What either has; records as the local store lists them, the outboxes' too."""
        return listed_once(self._local.objects(), self._central.objects())

    def close(self) -> None:
        self._sender.close()
        super().close()

    def _forget(self, keys: Sequence[bytes] | None) -> None:
        super()._forget(keys)
        self._sender.drop(keys, _DROP_S)
        if keys is None:
            self._journal.reset()

"""Sends to the central store what it lacks, whenever the link is up; the outbox outlives it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from kvloop.shared_cache.backends.chain.promoter import is_sound
from kvloop.shared_cache.backends.chain.tier import Tier
from kvloop.shared_cache.backends.zones.journal import Journal
from kvloop.shared_cache.backends.zones.outbox import Outbox
from kvloop.shared_cache.host_pool import HostPool

_RETRY_S = 0.2
_SLOTS_S = 1.0
_CLOSE_S = 10.0
_MAX_RECORDS = 256
log = logging.getLogger(__name__)
_COUNTS = ("sent", "already_there", "lost", "damaged", "no_room", "overflowed", "adopted")


class Sender:
    """One thread; begins to connect only when there is something to send.

    It has stores of its own, over `staging`: however long a page takes across the link, the
    callers' calls never wait for it.
    """

    def __init__(
        self,
        tiers: Callable[[], tuple[Tier, Tier]],
        staging: HostPool,
        namespace: bytes,
        outbox: Outbox,
        journal: Journal,
        lease_s: float,
    ) -> None:
        """`tiers` connects to the local and to the central store."""
        self._connect = tiers
        self._tiers: tuple[Tier, Tier] | None = None
        self._staging = staging
        self._namespace = namespace
        self._outbox = outbox
        self._journal = journal
        self._beat_s = lease_s / 6
        self._next_beat = time.monotonic() + self._beat_s / 2
        self._lock = threading.Lock()
        self._in_order = threading.Lock()  # a key is journaled before it is done with
        self._counts = dict.fromkeys(_COUNTS, 0.0)
        self._records: dict[str, bytes] = {}
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="l3-sender", daemon=True)
        self._thread.start()

    def add(self, keys: Sequence[bytes]) -> None:
        """The local store has these pages, and the central one may not."""
        with self._in_order:
            added = self._outbox.add(keys)
            self._journal.append(added.new)
        self._count("overflowed", len(added.refused))

    def add_record(self, name: str, value: bytes) -> None:
        """Held in memory only; too many, and the oldest are not sent."""
        with self._lock:
            self._records.pop(name, None)
            self._records[name] = value
            if len(self._records) > _MAX_RECORDS:
                del self._records[next(iter(self._records))]
        self._outbox.wake()

    def drop(self, keys: Sequence[bytes] | None, timeout_s: float) -> None:
        """These pages, or all, and all records, are about to be deleted."""
        dropped = self._outbox.drop(keys, timeout_s)
        with self._in_order:
            self._journal.done(dropped)
        if keys is None:
            with self._lock:
                self._records.clear()

    def stats(self) -> dict[str, float]:
        """Pages since the start, and those that wait; never blocks for long."""
        with self._lock:
            return {
                **self._counts,
                "backlog": float(len(self._outbox)),
                "backlog_records": float(len(self._records)),
                "unjournaled": float(self._journal.num_unwritten),
            }

    def close(self) -> None:
        """What waits stays in the journal."""
        self._is_closed.set()
        self._outbox.wake()
        self._thread.join(_CLOSE_S)
        self._journal.release()
        for tier in self._tiers or ():
            tier.close()

    def _run(self) -> None:
        while not self._is_closed.is_set():
            try:
                is_working = self._step()
            except Exception:
                log.exception("zones: the sender goes on after an error")
                is_working = False
            if not is_working:
                self._is_closed.wait(_RETRY_S)

    def _step(self) -> bool:
        """False where something waits that cannot be sent now."""
        if time.monotonic() >= self._next_beat:
            self._beat()
        self._outbox.wait(max(0.0, self._next_beat - time.monotonic()))
        if self._is_closed.is_set() or not (len(self._outbox) or self._records):
            return True
        return self._send()

    def _beat(self) -> None:
        self._next_beat = time.monotonic() + self._beat_s
        self._journal.beat()
        for keys in self._journal.orphans():
            if len(self._outbox) and len(keys) > self._outbox.room:
                break  # it stays an orphan until there is room
            self._count("adopted", len(keys))
            self.add(keys)

    def _send(self) -> bool:
        """A batch; False where the link or the local store is down."""
        if self._tiers is None:
            self._tiers = self._connect()
        local, central = self._tiers
        if not local.is_up or not central.is_up:
            return False
        if not self._send_records(central):
            return False
        keys = self._outbox.first(self._staging.num_slots)
        done: list[bytes] | None = None
        try:
            done = self._send_pages(local, central, keys)
        finally:
            self._outbox.settle(done or ())
        with self._in_order:
            self._journal.done(done or ())
        return done is not None

    def _send_records(self, central: Tier) -> bool:
        while self._records:
            with self._lock:
                if not self._records:
                    break
                name, value = next(iter(self._records.items()))
            if not central.put_small(name, value):
                return False
            with self._lock:
                if self._records.get(name) is value:
                    del self._records[name]
        return True

    def _send_pages(self, local: Tier, central: Tier, keys: list[bytes]) -> list[bytes] | None:
        """Those that need not be sent again; None where a store did not answer."""
        found = central.exists(keys)
        if found is None:
            return None
        there = [key for key, is_there in zip(keys, found, strict=True) if is_there]
        missing = [key for key, is_there in zip(keys, found, strict=True) if not is_there]
        self._count("already_there", len(there))
        slots = self._staging.alloc_up_to(len(missing), _SLOTS_S)
        missing = missing[: len(slots)]
        try:
            sent = self._relay(local, central, missing, slots)
        finally:
            self._staging.free(slots)
        return None if sent is None else there + sent

    def _relay(
        self, local: Tier, central: Tier, keys: list[bytes], slots: list[int]
    ) -> list[bytes] | None:
        """From the local store to the central one: whatever comes of it is settled."""
        found = local.get(keys, slots)
        if found is None:
            return None
        pages = [
            page
            for page, is_found in zip(zip(keys, slots, strict=True), found, strict=True)
            if is_found
        ]
        good = [page for page in pages if is_sound(self._staging, self._namespace, *page)]
        if bad := [key for key, slot in pages if (key, slot) not in good]:
            local.delete(bad)
        stored = central.set([key for key, _ in good], [slot for _, slot in good])
        if stored is None:
            return None
        self._count("lost", found.count(False))
        self._count("damaged", len(bad))
        self._count("sent", sum(stored))
        self._count("no_room", stored.count(False))
        return keys

    def _count(self, name: str, n: int) -> None:
        with self._lock:
            self._counts[name] += n

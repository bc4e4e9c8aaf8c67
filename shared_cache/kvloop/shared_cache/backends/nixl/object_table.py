"""Which objects lie where in the memory server's segment: reserve, commit, locate, evict. Pure.

Clients read and write the segment by themselves (one-sided), so space is never reused under them:
a reader holds a lease, a writer a reservation, each with a deadline. An object under lease is not
evicted; deleted, its space stays until the last lease ends. A reservation that passes its deadline
can no longer be committed, and since its writer may still write, the space is kept aside for
`QUARANTINE` times as long again. What is late beyond that is caught by the page's checksum.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, NamedTuple

from kvloop.shared_cache.backends.nixl.extents import Extents

QUARANTINE = 10


class Reserved(NamedTuple):
    """The answer to a reservation of one object."""

    state: Literal["reserved", "stored", "no_room"]
    ticket: int = 0
    """To commit or abort with."""
    offset: int = 0


class Located(NamedTuple):
    """One object for reading."""

    ticket: int
    """To release with; 0: it is not there."""
    offset: int = 0


class Listed(NamedTuple):
    """One object of a listing."""

    name: str
    num_bytes: int
    used_at: float
    serial: int
    """Grows from one stored object to the next."""


@dataclass(slots=True, kw_only=True)
class _Object:
    name: str
    offset: int
    num_bytes: int
    used_at: float
    serial: int
    num_leases: int = 0
    is_gone: bool = False


class _Writing(NamedTuple):
    name: str
    offset: int
    num_bytes: int
    until: float


class _Lease(NamedTuple):
    stored: _Object
    until: float


class ObjectTable:
    """Not thread-safe; `now` in all calls is a time that never runs backwards, in seconds.

    Both leases and reservations last `lease_s`.
    """

    def __init__(self, num_bytes: int, lease_s: float) -> None:
        self.num_evicted = 0
        self._lease_s = lease_s
        self._extents = Extents(num_bytes)
        self._objects: dict[str, _Object] = {}  # in the order that they were stored
        self._by_use: OrderedDict[str, _Object] = OrderedDict()  # the least recently used first
        self._serials = itertools.count(1)
        self._tickets = itertools.count(1)
        self._writing: dict[int, _Writing] = {}
        self._reading: dict[int, _Lease] = {}
        self._aside: deque[_Writing] = deque()

    @property
    def num_objects(self) -> int:
        return len(self._objects)

    @property
    def free_bytes(self) -> int:
        return self._extents.free_bytes

    @property
    def num_tickets(self) -> int:
        """Leases and reservations that have not ended."""
        return len(self._writing) + len(self._reading)

    def exists(self, names: Sequence[str], num_bytes: int, now: float) -> list[bool]:
        """Which of these objects are stored with this size; they count as used."""
        return [self._use(name, num_bytes, now) is not None for name in names]

    def reserve(self, names: Sequence[str], num_bytes: int, now: float) -> list[Reserved]:
        """Space for each object that is not stored yet, if need be by evicting."""
        return [self._reserve(name, num_bytes, now) for name in names]

    def commit(self, tickets: Sequence[int], now: float) -> list[bool]:
        """Make written objects visible; the first commit of a name wins and later ones are True.

        False where the reservation has ended.
        """
        return [self._commit(ticket, now) for ticket in tickets]

    def abort(self, tickets: Sequence[int]) -> None:
        """Give up reservations that nothing is written to any more."""
        for ticket in tickets:
            writing = self._writing.pop(ticket, None)
            if writing is not None:
                self._extents.give(writing.offset, writing.num_bytes)

    def locate(self, names: Sequence[str], num_bytes: int, now: float) -> list[Located]:
        """Lease objects for reading."""
        return [self._locate(name, num_bytes, now) for name in names]

    def release(self, tickets: Sequence[int]) -> list[bool]:
        """End leases; False where one has ended before, so that what was read does not count."""
        return [self._end_lease(ticket) for ticket in tickets]

    def delete(self, names: Sequence[str]) -> list[bool]:
        """Remove objects; True where one was there."""
        return [self._drop(name) for name in names]

    def clear(self, prefix: str) -> None:
        """Remove all objects whose names start so."""
        self.delete([name for name in self._objects if name.startswith(prefix)])

    def objects(self, after: int = 0) -> Iterator[Listed]:
        """Objects of a later serial than this; change nothing meanwhile."""
        for stored in self._objects.values():
            if stored.serial > after:
                yield Listed(stored.name, stored.num_bytes, stored.used_at, stored.serial)

    def sweep(self, now: float) -> None:
        """End what is past its deadline; call often."""
        for ticket in _past(self._reading, now):
            self._end_lease(ticket)
        for ticket in _past(self._writing, now):
            writing = self._writing.pop(ticket)
            self._aside.append(writing._replace(until=now + QUARANTINE * self._lease_s))
        while self._aside and self._aside[0].until <= now:
            writing = self._aside.popleft()
            self._extents.give(writing.offset, writing.num_bytes)

    # --- one object -------------------------------------------------------------------------------

    def _use(self, name: str, num_bytes: int, now: float) -> _Object | None:
        stored = self._objects.get(name)
        if stored is None or stored.num_bytes != num_bytes:
            return None
        stored.used_at = now
        self._by_use.move_to_end(name)
        return stored

    def _reserve(self, name: str, num_bytes: int, now: float) -> Reserved:
        if self._use(name, num_bytes, now) is not None:
            return Reserved("stored")
        offset = self._room(num_bytes)
        if offset is None:
            return Reserved("no_room")
        ticket = next(self._tickets)
        self._writing[ticket] = _Writing(name, offset, num_bytes, now + self._lease_s)
        return Reserved("reserved", ticket, offset)

    def _room(self, num_bytes: int) -> int | None:
        """Evict from the least recently used on, past what is being read, until there is room."""
        while (offset := self._extents.take(num_bytes)) is None:
            unused = (name for name, stored in self._by_use.items() if not stored.num_leases)
            victim = next(unused, None)
            if victim is None:
                return None
            self._drop(victim)
            self.num_evicted += 1
        return offset

    def _commit(self, ticket: int, now: float) -> bool:
        writing = self._writing.pop(ticket, None)
        if writing is None:
            return False
        name, offset, num_bytes, _ = writing
        if self._use(name, num_bytes, now) is not None:
            self._extents.give(offset, num_bytes)
            return True
        self._drop(name)  # one of another size is in the way
        self._add(name, offset, num_bytes, now)
        return True

    def _add(self, name: str, offset: int, num_bytes: int, now: float) -> None:
        serial = next(self._serials)
        self._objects[name] = self._by_use[name] = _Object(
            name=name, offset=offset, num_bytes=num_bytes, used_at=now, serial=serial
        )

    def _locate(self, name: str, num_bytes: int, now: float) -> Located:
        stored = self._use(name, num_bytes, now)
        if stored is None:
            return Located(0)
        ticket = next(self._tickets)
        stored.num_leases += 1
        self._reading[ticket] = _Lease(stored, now + self._lease_s)
        return Located(ticket, stored.offset)

    def _end_lease(self, ticket: int) -> bool:
        lease = self._reading.pop(ticket, None)
        if lease is None:
            return False
        lease.stored.num_leases -= 1
        self._free_if_unused(lease.stored)
        return True

    def _drop(self, name: str) -> bool:
        stored = self._objects.pop(name, None)
        if stored is None:
            return False
        del self._by_use[name]
        stored.is_gone = True
        self._free_if_unused(stored)
        return True

    def _free_if_unused(self, stored: _Object) -> None:
        if stored.is_gone and not stored.num_leases:
            self._extents.give(stored.offset, stored.num_bytes)


def _past(tickets: Mapping[int, _Writing | _Lease], now: float) -> list[int]:
    """All last equally long, so that those given first end first."""
    return [ticket for ticket, _ in takewhile(lambda item: item[1].until <= now, tickets.items())]

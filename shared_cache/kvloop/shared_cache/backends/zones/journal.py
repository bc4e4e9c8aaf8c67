"""The outboxes of a site's nodes as small records of its local store: they outlive the nodes.

    zones-<zone>-outboxes           ids of outboxes, 8 bytes each
    zones-<zone>-<id>               head: beat, first and last segment of how many, or released
    zones-<zone>-<id>-<n>           segment: up to 128 keys

A node has an outbox of its own and beats while it lives. One whose beat stands still for the lease
is an orphan, and any node of the site takes its keys over. Two that do so at once send the same
pages twice, which does no harm. Records cannot be deleted one by one: what is done with is emptied.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import msgspec

from kvloop.shared_cache.backends.chain.tier import Record

_SEGMENT_KEYS = 128
_KEY_BYTES = 32
_ID_BYTES = 8
_MAX_OUTBOXES = 64


class Records(Protocol):
    """Where it is kept: a Tier."""

    def put_small(self, name: str, value: bytes) -> bool: ...

    def get_small(self, name: str) -> Record | None: ...


class Head(msgspec.Struct, frozen=True, array_like=True):
    """Of one outbox."""

    beat: int
    first: int
    last: int
    """Segments first .. last hold keys that may not have been sent."""
    is_released: bool
    """Its node has closed in good order: it may be taken over at once."""
    num_segments: int = 0
    """Names of segments that are used in turn: the node's, whatever its heir is configured to."""


class Journal:
    """One node's outbox as records, and its eye on the others; thread-safe.

    What cannot be written now is written with a later beat; see `num_unwritten`.
    """

    def __init__(
        self,
        records: Records,
        zone: str,
        max_pages: int,
        lease_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._prefix = f"zones-{zone}-"
        self._num_segments = -(-max_pages // _SEGMENT_KEYS) + 2
        self._lease_s = lease_s
        self._clock = clock
        self._lock = threading.RLock()
        self._id = secrets.token_bytes(_ID_BYTES)
        self._segments: dict[int, list[bytes]] = {}
        self._open: dict[bytes, int] = {}  # keys that were not sent, and their segments
        self._num_open: Counter[int] = Counter()  # of these in each segment
        self._unwritten: set[int] = set()  # segments
        self._num_refused = 0
        self._num_unwritten = 0
        self._beat = 0
        self._next = 0
        self._written_range: tuple[int, int] | None = (0, -1)
        self._is_begun = False
        self._seen: dict[bytes, tuple[bytes, float]] = {}  # other heads, and since when

    @property
    def num_unwritten(self) -> int:
        """Keys that would not survive the process now, and those that there was no room for."""
        return self._num_unwritten  # without the lock, which is held while the store hangs

    def append(self, keys: Sequence[bytes]) -> None:
        """Write down keys that are new in the outbox."""
        with self._lock:
            for key in keys:
                self._close(key)  # it was sent a moment ago, and has come again
                segment = self._segment_with_room()
                if segment is None:
                    self._num_refused += 1
                    continue
                self._segments[segment].append(key)
                self._open[key] = segment
                self._num_open[segment] += 1
                self._unwritten.add(segment)
            self._count_unwritten()
            if keys:
                self._is_begun = self._is_begun or self._register()
                self._write_what_is_due()

    def done(self, keys: Collection[bytes]) -> None:
        """These need not be sent again; whole segments of them are let go of."""
        with self._lock:
            for key in keys:
                self._close(key)
            self._count_unwritten()
            self._write_head_if_moved()

    def beat(self) -> None:
        """Say that the node lives; call it some times within the lease."""
        with self._lock:
            if self._is_begun or self._segments:
                # Another node may have put the list at the same time.
                self._is_begun = self._register() or self._is_begun
                self._write_head()
                self._write_what_is_due()

    def orphans(self) -> Iterator[list[bytes]]:
        """The keys of outboxes whose node is gone.

        Each is emptied when the next is asked for: write down its keys before. One that could not
        be read whole stays.
        """
        for outbox in self._listed() or ():
            head = self._orphaned(outbox)
            if head is not None:
                found = [self._read(name) for name in self._segment_names(outbox, head)]
                yield [key for keys in found for key in keys or ()]
                if None not in found:
                    self._empty(outbox, head)

    def release(self) -> None:
        """The node closes: whatever is left may be taken over at once."""
        with self._lock:
            if self._is_begun:
                self._write_head(is_released=True)

    def reset(self) -> None:
        """The namespace was cleared, its records too."""
        with self._lock:
            self._segments.clear()
            self._open.clear()
            self._num_open.clear()
            self._unwritten.clear()
            self._count_unwritten()
            self._is_begun, self._written_range = False, (0, -1)

    # --- the node's own outbox ------------------------------------------------------------------

    def _segment_with_room(self) -> int | None:
        """None where all segments hold keys that were not sent."""
        last = max(self._segments, default=None)
        if last is not None and len(self._segments[last]) < _SEGMENT_KEYS:
            return last
        if self._next - min(self._segments, default=self._next) >= self._num_segments:
            return None
        self._segments[self._next] = []
        self._next += 1
        return self._next - 1

    def _close(self, key: bytes) -> None:
        segment = self._open.pop(key, None)
        if segment is None:
            return
        self._num_open[segment] -= 1
        if not self._num_open[segment]:
            del self._num_open[segment], self._segments[segment]
            self._unwritten.discard(segment)

    def _count_unwritten(self) -> None:
        self._num_unwritten = self._num_refused + sum(self._num_open[n] for n in self._unwritten)

    def _write_what_is_due(self) -> None:
        self._write_head_if_moved()
        for segment in sorted(self._unwritten):
            value = b"".join(self._segments[segment])
            name = self._segment_name(self._id, segment, self._num_segments)
            if self._records.put_small(name, value):
                self._unwritten.discard(segment)
        self._count_unwritten()

    def _write_head_if_moved(self) -> None:
        if self._range() != self._written_range:
            self._write_head()

    def _range(self) -> tuple[int, int]:
        """None of them: the last is before the first."""
        return min(self._segments, default=0), max(self._segments, default=-1)

    def _write_head(self, is_released: bool = False) -> None:
        self._beat += 1
        head = Head(self._beat, *self._range(), is_released, self._num_segments)
        is_written = self._records.put_small(
            self._head_name(self._id), msgspec.msgpack.encode(head)
        )
        self._written_range = self._range() if is_written else None

    def _register(self) -> bool:
        outboxes = self._listed()
        if outboxes is None:
            return False
        if self._id in outboxes:
            return True
        return self._list([*outboxes, self._id][-_MAX_OUTBOXES:])

    # --- those of others ------------------------------------------------------------------------

    def _orphaned(self, outbox: bytes) -> Head | None:
        """The head of one whose node is gone; None of one that may live, or is this node's."""
        record = self._records.get_small(self._head_name(outbox))
        if outbox == self._id or record is None:
            return None
        value, now = record.value or b"", self._clock()
        if self._seen.get(outbox, (None,))[0] != value:
            self._seen[outbox] = (value, now)
        head = _decoded(value)
        is_silent = now - self._seen[outbox][1] >= self._lease_s
        return head if head.is_released or is_silent else None

    def _read(self, segment_name: str) -> list[bytes] | None:
        """None where there was no answer."""
        record = self._records.get_small(segment_name)
        if record is None:
            return None
        value = record.value or b""
        whole = len(value) - len(value) % _KEY_BYTES
        return [value[i : i + _KEY_BYTES] for i in range(0, whole, _KEY_BYTES)]

    def _empty(self, outbox: bytes, head: Head) -> None:
        listed = self._listed()
        if listed is None:
            return  # it is taken over once more, which does no harm
        self._seen.pop(outbox, None)
        self._list([other for other in listed if other != outbox])
        self._records.put_small(self._head_name(outbox), b"")
        for name in self._segment_names(outbox, head):
            self._records.put_small(name, b"")

    def _listed(self) -> list[bytes] | None:
        """None where there was no answer: then the list must not be written either."""
        record = self._records.get_small(f"{self._prefix}outboxes")
        if record is None:
            return None
        value = record.value or b""
        whole = len(value) - len(value) % _ID_BYTES
        return [value[i : i + _ID_BYTES] for i in range(0, whole, _ID_BYTES)]

    def _list(self, outboxes: Sequence[bytes]) -> bool:
        return self._records.put_small(f"{self._prefix}outboxes", b"".join(outboxes))

    def _head_name(self, outbox: bytes) -> str:
        return f"{self._prefix}{outbox.hex()}"

    def _segment_names(self, outbox: bytes, head: Head) -> list[str]:
        num_segments = head.num_segments or self._num_segments
        numbers = range(head.first, head.last + 1)[-num_segments:]
        return [self._segment_name(outbox, n, num_segments) for n in numbers]

    def _segment_name(self, outbox: bytes, segment: int, num_segments: int) -> str:
        return f"{self._prefix}{outbox.hex()}-{segment % num_segments}"


def _decoded(value: bytes) -> Head:
    """One that cannot be read has no segments."""
    try:
        return msgspec.msgpack.decode(value, type=Head)
    except msgspec.DecodeError:
        return Head(0, 0, -1, False)

"""Small records of the memory server, apart from its segment. Pure."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from kvloop.shared_cache.backends.nixl.object_table import Listed

MAX_RECORD_BYTES = 1 << 20
_OVERHEAD_BYTES = 512  # of a record's name and its place in the table


@dataclass(slots=True, kw_only=True)
class _Record:
    value: bytes
    used_at: float
    serial: int


class RecordTable:
    """At most `num_bytes` of records; the least recently used make room. Not thread-safe."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = 0
        self._limit = num_bytes
        self._serials = itertools.count(1)
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def put(self, name: str, value: bytes, now: float) -> bool:
        """The last put wins; False where the record is too long."""
        size = len(value) + _OVERHEAD_BYTES
        if len(value) > MAX_RECORD_BYTES or size > self._limit:
            return False
        self._drop(name)
        while self.num_bytes + size > self._limit:
            self._drop(next(iter(self._records)))
        self._records[name] = _Record(value=value, used_at=now, serial=next(self._serials))
        self.num_bytes += size
        return True

    def get(self, name: str, now: float) -> bytes | None:
        """The record, or None."""
        record = self._records.get(name)
        if record is None:
            return None
        record.used_at = now
        self._records.move_to_end(name)
        return record.value

    def clear(self, prefix: str) -> None:
        """Remove all records whose names start so."""
        for name in [name for name in self._records if name.startswith(prefix)]:
            self._drop(name)

    def records(self, after: int = 0) -> Iterator[Listed]:
        """Records of a later serial than this, in the order of serials."""
        later = [(r.serial, name) for name, r in self._records.items() if r.serial > after]
        for serial, name in sorted(later):
            record = self._records[name]
            yield Listed(name, len(record.value), record.used_at, serial)

    def _drop(self, name: str) -> None:
        record = self._records.pop(name, None)
        if record is not None:
            self.num_bytes -= len(record.value) + _OVERHEAD_BYTES

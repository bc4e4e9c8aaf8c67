"""Small records, in two objects each: the store overwrites in place, and no reader may see that.

A put goes to the object that has not the newest content, so that the newest stays whole while the
next is written. Both say what they hold: a version, and the xxh3 of version and value. They are
never evicted: one that came back in its older version would be worse than none.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import xxhash

from kvloop.shared_cache.backends.mooncake import codes as meaning

_HEAD = struct.Struct("<QQ")  # version, xxh3
_CONTEST_S = 1.0  # for which a put that others disturb is tried again
_PERIOD_S = 0.01
_READS = 3
_BLINK_S = 0.002  # a record that is not there is a miss soon, and misses are waited for


class _Found(NamedTuple):
    version: int
    value: bytes | None
    next_index: int
    """Of the object that the next put goes to."""
    is_there: bool
    """Whether there is any object, whole or not."""


class Records:
    """Reads and writes the records of one connection; thread-safe."""

    def __init__(
        self, store: Any, placement: Any, check: Callable[[str, Sequence[int]], None]
    ) -> None:
        """`check` raises for codes that are faults of the store."""
        self._store = store
        self._placement = placement
        self._check = check

    def put(self, names: Sequence[str], value: bytes) -> bool:
        """The last put wins; False where there is no room, or others write without end."""
        until = time.monotonic() + _CONTEST_S
        while True:
            found = self._read("put_small", names)
            content = _packed(found.version + 1, value)
            status = self._store.upsert(names[found.next_index], content, self._placement)
            if status not in meaning.CONTESTED or time.monotonic() >= until:
                break
            time.sleep(_PERIOD_S)
        self._check("put_small", [status])
        return bool(status == 0)

    def get(self, names: Sequence[str]) -> bytes | None:
        """None where there is none."""
        for i in range(_READS):
            found = self._read("get_small", names)
            if found.value is not None:
                return found.value
            if i and not found.is_there:
                break
            # Several may write both objects at this moment.
            time.sleep(_PERIOD_S if found.is_there else _BLINK_S)
        return None

    def _read(self, call: str, names: Sequence[str]) -> _Found:
        # Asked first: a get that fails is no different from one that finds nothing.
        codes = self._store.batch_is_exist(list(names))
        self._check(call, codes)
        newest = _Found(0, None, 0, any(code == 1 for code in codes))
        for i, stored in enumerate(self._store.get_batch(list(names))):
            version, value = _unpacked(stored)
            if value is not None and version > newest.version:
                newest = _Found(version, value, 1 - i, True)
        return newest


def _packed(version: int, value: bytes) -> bytes:
    return _HEAD.pack(version, _sum(version, value)) + value


def _unpacked(stored: bytes) -> tuple[int, bytes | None]:
    if len(stored) < _HEAD.size:
        return 0, None
    version, checksum = _HEAD.unpack_from(stored)
    value = stored[_HEAD.size :]
    return version, value if checksum == _sum(version, value) else None


def _sum(version: int, value: bytes) -> int:
    return xxhash.xxh3_64_intdigest(value, seed=version)

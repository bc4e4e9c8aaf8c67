"""How long one `exists` of many keys takes, some of them stored."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kvloop.benchmark.storage.load import StorageLoad, phase_batches
from kvloop.shared_cache.guard import GuardedBackend

_NUM_CALLS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistsTimes:
    """Of one call."""

    num_keys: int
    num_found: int
    median_ms: float
    max_ms: float


def time_exists(load: StorageLoad, guard: GuardedBackend, slots: Sequence[int]) -> ExistsTimes:
    """Stores half a call's keys, looks for all, and removes them; slots must be sealed.

    Where half of them are more bytes than a phase moves, as many are stored as that.
    """
    room = load.num_batches * load.pages_per_batch
    stored = _keys(load, "stored")[: min(load.num_exists // 2, room)]
    keys = stored + _keys(load, "absent")[: load.num_exists - len(stored)]
    for first in range(0, len(stored), len(slots)):
        some = stored[first : first + len(slots)]
        guard.set(some, slots[: len(some)])
    seconds, found = [], 0
    for _ in range(_NUM_CALLS):
        began = time.perf_counter()
        answers = guard.exists(keys)
        seconds.append(time.perf_counter() - began)
        found = sum(answers or [])
    guard.delete(stored)
    return ExistsTimes(
        num_keys=len(keys),
        num_found=found,
        median_ms=1e3 * statistics.median(seconds),
        max_ms=1e3 * max(seconds),
    )


def _keys(load: StorageLoad, name: str) -> list[bytes]:
    keys: list[bytes] = []
    number = 0
    while len(keys) < load.num_exists:
        for batch in phase_batches(load, f"exists {name}", number, "write"):
            keys += batch.keys
        number += 1
    return keys

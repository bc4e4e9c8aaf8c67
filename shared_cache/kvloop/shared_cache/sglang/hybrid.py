"""How much of a prefix a hybrid model can restore from what each of its pools has stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kvloop.shared_cache.backend import leading_run


class PoolHits(NamedTuple):
    """What a side pool has of the pages of the KV's prefix."""

    present: Sequence[bool]
    trailing: int | None
    """Only so many pages at the prefix's end must exist; None: all from the start."""


def restorable_lengths(hits: PoolHits, kv_pages: int) -> list[int]:
    """Lengths of prefixes, in pages and ascending, whose pages of this pool are there."""
    if hits.trailing is None:
        return list(range(1, leading_run(hits.present[:kv_pages]) + 1))
    window = max(1, hits.trailing)
    return [
        length
        for length in range(1, kv_pages + 1)
        if all(hits.present[max(0, length - window) : length])
    ]

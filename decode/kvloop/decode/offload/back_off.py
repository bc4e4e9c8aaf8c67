"""Pauses between attempts at something that L3 did not do; pure."""

from __future__ import annotations

import random

_FIRST_S = 0.1
_LONGEST_S = 2.0
_FIRST_LOOK_S = 0.05


def retry_pause_s(num_failed: int, dice: random.Random) -> float:
    """Before the next attempt at a page: doubles with each failure; jitter parts the chains."""
    assert num_failed >= 1
    return _doubled(_FIRST_S, num_failed - 1) * dice.uniform(0.75, 1.25)


def look_pause_s(num_looks: int) -> float:
    """Before the next look for pages that prefill is storing."""
    assert num_looks >= 1
    return _doubled(_FIRST_LOOK_S, num_looks - 1)


def _doubled(first_s: float, times: int) -> float:
    return min(first_s * 2.0 ** min(times, 16), _LONGEST_S)  # more would overflow one day

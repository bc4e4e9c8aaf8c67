"""Waiting for a cluster, with a deadline and what was seen last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")
LOOK_S = 1.0


def wait_until(
    what: str, look: Callable[[], Seen], holds: Callable[[Seen], object], *, within_s: float
) -> Seen:
    """What was seen when it held; fails with what was seen last."""
    ends_at = time.monotonic() + within_s
    while not holds(seen := look()):
        assert time.monotonic() < ends_at, f"{what}: not within {within_s:g} s; last seen: {seen}"
        time.sleep(LOOK_S)
    return seen

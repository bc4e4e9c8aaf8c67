"""The arms of a benchmark: the same load with and without what is claimed to help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Arm = Literal["on", "bypassed", "l3_only", "all_miss"]
"""on: as users run it; bypassed: no tier is read or written; l3_only: L1 and L2 are not read;
all_miss: every prompt begins with something that no other has, so that nothing can hit."""
ARMS: tuple[Arm, ...] = ("on", "bypassed", "l3_only", "all_miss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of the run in which one arm alone loads the server."""

    arm: Arm
    step: int
    """Of the rate sweep, from 0; always 0 without one."""
    round: int
    """From 0; in each, every arm holds the same conversations once."""
    conversations: tuple[int, ...]
    """Numbers in the workload; a branch stands with its parent."""
    salt: str
    """`cache_salt` of its requests: equal for all rounds of an arm and step, else different."""
    rate: float | None = None
    """Requests a second of this step; None: closed loop, or as the workload says."""

"""How many nodes one role needs for what it had to do, judged against the objectives.

Two numbers, since waits say little of how much could be spared: `up` grows only where an objective
is missed; `down` never falls below what the work itself fills.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kvloop.operator.autoscale.load import Loads, RoleLoad
from kvloop.operator.types.pd_cluster import Objectives

BAND = 1.1
"""An objective may be missed by this factor before nodes are added."""
SPARE = 1.2
"""So much more than needed is kept when nodes are taken away."""
MAX_GROWTH = 2.0
"""Nodes at most double in one step."""
_BUSY = 0.75
"""Share of its time that a prefill node may compute."""
_FULL = 0.85
"""Share of its pages that a decode node may use."""
_QUEUE_S = 1.0
"""Objective of the wait where none of prefill's is given."""
_WAITS = 0.1
"""A first token is late because of a queue where the wait is this share of the objective."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Of one role."""

    up: float
    """Nodes that would meet the objectives; not above `down`."""
    down: float
    """Nodes that the work fills."""
    work: float
    """Grows with load, whatever the number of nodes: seconds of computing a second, or requests."""
    reason: str = ""
    """The objective that is missed most, in words."""


def prefill_need(load: RoleLoad, loads: Loads, objectives: Objectives) -> Need:
    """By the wait of prompts, and by the first token where a queue is what delays it."""
    pressures = [(0.0, "")]
    queue_s = objectives.queue_seconds
    if queue_s is None and objectives.ttft_milliseconds is None:
        queue_s = _QUEUE_S
    if queue_s is not None:
        wait_s = load.longest_wait_s
        pressures.append((wait_s / queue_s, f"prompts wait {wait_s:.2f} s of {queue_s:g} s"))
    if objectives.ttft_milliseconds is not None and loads.ttft_s is not None:
        aim_s = objectives.ttft_milliseconds / 1000
        if load.longest_wait_s >= _WAITS * aim_s or load.busy_share >= _BUSY:
            words = f"first tokens take {loads.ttft_s * 1000:.0f} ms of {aim_s * 1000:.0f} ms"
            pressures.append((loads.ttft_s / aim_s, words))
    work = load.busy_share * load.ready
    return _need(load, max(pressures), filled=work / _BUSY, work=work)


def decode_need(load: RoleLoad, loads: Loads, objectives: Objectives) -> Need:
    """By the time between tokens, the pages in use, and the wait for pages."""
    queue_s = objectives.queue_seconds or _QUEUE_S
    pressures = [
        (load.pool_share / _FULL, f"{load.pool_share:.0%} of the pages are in use"),
        (load.longest_wait_s / queue_s, f"requests wait {load.longest_wait_s:.2f} s for pages"),
    ]
    if objectives.tpot_milliseconds is not None and loads.itl_s is not None:
        aim_s = objectives.tpot_milliseconds / 1000
        # A request runs on one node: with fewer requests than nodes more nodes help none.
        pressure = min(loads.itl_s / aim_s, load.running / max(load.ready, 1))
        words = f"tokens take {loads.itl_s * 1000:.0f} ms of {aim_s * 1000:.0f} ms"
        pressures.append((pressure, words))
    filled = max(pressure for pressure, _ in pressures) * load.ready
    return _need(load, max(pressures), filled=filled, work=load.begun / load.window_s)


def _need(load: RoleLoad, worst: tuple[float, str], *, filled: float, work: float) -> Need:
    pressure, words = worst
    up = pressure * load.ready if pressure > BAND else 0.0
    return Need(up=up, down=max(filled, pressure * load.ready), work=work, reason=words)


def nodes(need: float) -> int:
    """Whole nodes; a hair above a whole number is that number."""
    return math.ceil(need - 1e-9)

"""How many nodes each role is given now: up at once, down after a quiet time, never to and fro."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kvloop.operator.autoscale.load import ROLES, Loads, RoleLoad, RoleName
from kvloop.operator.autoscale.need import (
    MAX_GROWTH,
    SPARE,
    Need,
    decode_need,
    nodes,
    prefill_need,
)
from kvloop.operator.types.cluster_status import AutoscalingStatus, RoleScaling
from kvloop.operator.types.pd_cluster import Autoscaling, RoleAutoscaling

_EASED = 0.9
"""Nodes that were too few are tried again once the work is this share of what it was then."""
_GAP_S = 180
"""Quiet that was not observed for so long is no quiet."""
_MOVE_S = 60
"""Between two moves from role to role."""
_MINUTE = 60
_PAIRS: tuple[tuple[RoleName, RoleName], ...] = (("prefill", "decode"), ("decode", "prefill"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is wanted of the roles that are scaled."""

    replicas: Mapping[RoleName, int] = field(default_factory=dict)
    status: AutoscalingStatus = field(default_factory=AutoscalingStatus)
    """What must be remembered until the next plan."""
    changes: tuple[str, ...] = ()
    """In words, for events; empty where nothing changes."""


class _Choice(NamedTuple):
    replicas: int
    memory: RoleScaling
    fewest: int
    """That would do now."""


def plan_scale(
    loads: Loads,
    autoscaling: Autoscaling,
    current: Mapping[RoleName, int],
    memory: AutoscalingStatus,
    now: float,
) -> Plan:
    """Pure. `current`: replicas as they are wanted now, by whomever; `now`: Unix time.

    A role without a load keeps its replicas, brought inside its bounds, and its memory.
    """
    choices = {
        role: _choose(role, loads, autoscaling, current[role], memory, now)
        for role in ROLES
        if _bounds(autoscaling, role) is not None
    }
    moved_at = memory.moved_at
    if autoscaling.keep_ratio and _may_move(memory, now):
        moved = _moved(choices, autoscaling, current)
        moved_at = int(now) if moved != choices else moved_at
        choices = moved
    kept = {role: choice.memory for role, choice in choices.items()}
    status = AutoscalingStatus(
        prefill=kept.get("prefill", RoleScaling()),
        decode=kept.get("decode", RoleScaling()),
        looked_at=_looked_at(loads, memory, now),
        moved_at=moved_at,
    )
    replicas = {role: choice.replicas for role, choice in choices.items()}
    changes = tuple(
        f"{role} {current[role]} -> {wanted}: {kept[role].reason}"
        for role, wanted in replicas.items()
        if wanted != current[role]
    )
    return Plan(replicas=replicas, status=status, changes=changes)


# --- one role -------------------------------------------------------------------------------


def _choose(
    role: RoleName,
    loads: Loads,
    autoscaling: Autoscaling,
    current: int,
    memory: AutoscalingStatus,
    now: float,
) -> _Choice:
    bounds, mine, load = _bounds(autoscaling, role), _memory_of(memory, role), loads.roles.get(role)
    assert bounds is not None
    inside = _clamped(current, bounds)
    if inside != current:
        reason = f"minReplicas is {bounds.min_replicas}, maxReplicas {bounds.max_replicas}"
        return _chosen(inside, mine, reason)
    if load is None or load.ready == 0:
        return _Choice(current, mine.model_copy(update={"wanted": current}), current)
    judge = prefill_need if role == "prefill" else decode_need
    need = judge(load, loads, autoscaling.objectives)
    more = _clamped(_grown(need, load), bounds)
    if more > current:
        short = {"short_with": load.ready, "short_work": round(need.work, 3)}
        return _chosen(more, mine.model_copy(update=short), need.reason)
    if need.up > load.ready or load.ready < current:
        return _Choice(current, _unquiet(mine, current), current)
    fewest = max(_clamped(nodes(need.down * SPARE), bounds), _enough_before(mine, need))
    if fewest >= current:
        return _Choice(current, _unquiet(mine, current), current)
    return _shrunk(current, fewest, mine, memory, autoscaling.scale_down_seconds, now)


def _grown(need: Need, load: RoleLoad) -> int:
    """By the nodes that serve: while others start, the same is asked for, not more and more."""
    return min(nodes(need.up), max(int(load.ready * MAX_GROWTH), load.ready + 1))


def _enough_before(memory: RoleScaling, need: Need) -> int:
    """One more than was too few for such work."""
    return memory.short_with + 1 if need.work > _EASED * memory.short_work else 0


def _shrunk(
    current: int,
    fewest: int,
    memory: RoleScaling,
    whole: AutoscalingStatus,
    quiet_s: int,
    now: float,
) -> _Choice:
    """Fewer once they would have done all the quiet time."""
    is_new = memory.quiet_since is None or now - (whole.looked_at or 0) > _GAP_S
    since = int(now) if is_new or memory.quiet_since is None else memory.quiet_since
    most = max(fewest, 0 if is_new else memory.most_needed)
    quiet = {"quiet_since": since, "most_needed": most, "wanted": current}
    if now - since < quiet_s or most >= current:
        return _Choice(current, memory.model_copy(update=quiet), fewest)
    words = f"{most} would have done for {now - since:.0f} s"
    return _chosen(most, memory, words)


def _chosen(replicas: int, memory: RoleScaling, reason: str) -> _Choice:
    update = {"wanted": replicas, "reason": reason, "quiet_since": None, "most_needed": 0}
    return _Choice(replicas, memory.model_copy(update=update), replicas)


def _unquiet(memory: RoleScaling, current: int) -> RoleScaling:
    return memory.model_copy(update={"quiet_since": None, "most_needed": 0, "wanted": current})


# --- both roles -----------------------------------------------------------------------------


def _may_move(memory: AutoscalingStatus, now: float) -> bool:
    return memory.moved_at is None or now - memory.moved_at >= _MOVE_S


def _moved(
    choices: Mapping[RoleName, _Choice], autoscaling: Autoscaling, current: Mapping[RoleName, int]
) -> dict[RoleName, _Choice]:
    """A role that grows takes from the other what that can spare, without its quiet time."""
    after = dict(choices)
    if len(choices) < len(ROLES):
        return after
    for taker, giver in _PAIRS:
        grown = choices[taker].replicas - current[taker]
        spare = current[giver] - choices[giver].fewest
        bounds = _bounds(autoscaling, giver)
        if grown <= 0 or spare <= 0 or bounds is None or choices[giver].replicas < current[giver]:
            continue
        left = max(current[giver] - min(grown, spare), bounds.min_replicas)
        if left < current[giver]:
            after[giver] = _chosen(left, choices[giver].memory, f"{taker} needs them more")
    return after


def _looked_at(loads: Loads, memory: AutoscalingStatus, now: float) -> int | None:
    """To the minute: each look would otherwise change the resource."""
    return int(now // _MINUTE) * _MINUTE if loads.roles else memory.looked_at


def _memory_of(memory: AutoscalingStatus, role: RoleName) -> RoleScaling:
    return memory.prefill if role == "prefill" else memory.decode


def _bounds(autoscaling: Autoscaling, role: RoleName) -> RoleAutoscaling | None:
    return autoscaling.prefill if role == "prefill" else autoscaling.decode


def _clamped(replicas: int, bounds: RoleAutoscaling) -> int:
    return min(max(replicas, bounds.min_replicas), bounds.max_replicas)

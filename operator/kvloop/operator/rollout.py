"""When a new pod counts as ready, so that both roles' Deployments move on together.

Nodes of unequal generations are never paired. A Deployment knows nothing of that: alone it would
take the last old prefill away while decode is still old. So prefill and decode pods have a
readiness gate that is opened here. It only holds old pods back; it takes none out of service.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

NodeRoleName = Literal["prefill", "decode"]
_OTHER: Mapping[NodeRoleName, NodeRoleName] = {"prefill": "decode", "decode": "prefill"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedPod:
    """A prefill or decode pod that is not on its way out."""

    name: str
    role: NodeRoleName
    generation: str
    runs: bool
    """Its containers are ready."""
    is_open: bool
    """Its gate is open already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the Deployments were told."""

    generation: str
    replicas: Mapping[NodeRoleName, int]
    max_unavailable: int


def plan_gates(pods: Collection[GatedPod], wanted: Wanted) -> frozenset[str]:
    """Names of the pods whose gate is to be opened now.

    With no other generation about: all. Else a pod's gate opens when a peer of its own generation
    runs, and the gate that would let the last old pod of a role go only when the other role, too,
    has as many new pods running.
    """
    shut = [pod for pod in pods if not pod.is_open]
    if all(pod.generation == wanted.generation for pod in pods):
        return frozenset(pod.name for pod in shut)
    opened: set[str] = set()
    for pod in sorted(shut, key=lambda pod: pod.name):
        if _may_open(pod, pods, wanted, opened):
            opened.add(pod.name)
    return frozenset(opened)


def _may_open(
    pod: GatedPod, pods: Collection[GatedPod], wanted: Wanted, opened: Collection[str]
) -> bool:
    if not pod.runs:
        return False
    other = _OTHER[pod.role]
    peers = sum(p.runs for p in pods if p.role == other and p.generation == pod.generation)
    if pod.generation != wanted.generation:
        return peers > 0
    if peers == 0 and wanted.replicas[other] > 0:
        return False
    ready = sum(
        (p.is_open and p.runs) or p.name in opened
        for p in pods
        if p.role == pod.role and p.generation == pod.generation
    )
    return ready + 1 < _enough(pod.role, wanted) or peers >= _enough(other, wanted)


def _enough(role: NodeRoleName, wanted: Wanted) -> int:
    """Ready new pods that let a Deployment take its last old one away."""
    replicas = wanted.replicas[role]
    return max(0, replicas - wanted.max_unavailable)

"""Of a memory server that is run here."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.operator.caches.seen import Figures, Looked, Verdict
from kvloop.operator.pod_trouble import Pod, is_ready, num_restarts, worst
from kvloop.operator.types.shared_cache import Member


def look_at_server(pods: Sequence[Pod], *, endpoint: str, capacity_bytes: int) -> Looked:
    """Pure."""
    ready = [pod for pod in pods if is_ready(pod)]
    members = [
        Member(
            name=pod["metadata"]["name"],
            role="server",
            ready=is_ready(pod),
            node=pod.get("spec", {}).get("nodeName", ""),
            restarts=num_restarts(pod),
        )
        for pod in pods
    ]
    figures = Figures(
        endpoint=endpoint,
        capacity_bytes=capacity_bytes if ready else None,
        replicas=len(pods),
        ready_replicas=len(ready),
        members=tuple(members),
    )
    return Looked(verdict=_verdict(pods, is_served=bool(ready)), figures=figures)


def _verdict(pods: Sequence[Pod], *, is_served: bool) -> Verdict:
    if is_served:
        return Verdict(status="True", reason="Ready", message="the memory server listens")
    if (trouble := worst(pods)) is not None:
        return Verdict(status="False", reason=trouble.reason, message=trouble.message)
    words = "the memory server does not listen yet" if pods else "the memory server has no pod yet"
    return Verdict(status="False", reason="ServerNotReady", message=words)

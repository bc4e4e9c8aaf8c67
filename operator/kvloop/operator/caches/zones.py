"""Of an edge site's store before a central one: from what is told of both."""

from __future__ import annotations

from collections.abc import Mapping

from kvloop.operator.caches.seen import Verdict
from kvloop.operator.types.base import Condition


def of_zones(parts: Mapping[str, tuple[str, Condition | None]]) -> Verdict:
    """`parts`: (SharedCache, its Ready) of local and central. Either alone still serves."""
    down = [
        f"{part} {name}: {_told(ready)}"
        for part, (name, ready) in parts.items()
        if ready is not None and ready.status == "False"
    ]
    unknown = [
        f"{part} {name}: {_told(ready)}"
        for part, (name, ready) in parts.items()
        if ready is None or ready.status == "Unknown"
    ]
    if len(down) == len(parts):
        return Verdict(status="False", reason="CacheNotReady", message="; ".join(down))
    if down:
        words = f"{'; '.join(down)}; the other serves alone"
        return Verdict(
            status="True" if not unknown else "Unknown", reason="Degraded", message=words
        )
    if unknown:
        return Verdict(status="Unknown", reason="NotObservable", message="; ".join(unknown))
    names = " and ".join(name for name, _ in parts.values())
    return Verdict(status="True", reason="Ready", message=f"{names} are ready")


def _told(ready: Condition | None) -> str:
    return f"{ready.reason}: {ready.message}" if ready is not None else "not looked at yet"

"""The status that a look came to, laid over the one that is there: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvloop.operator.controllers.base import Manifest

Conditions = Sequence[Mapping[str, Any]]


def status_patch(
    seen: Mapping[str, Any], wanted: Mapping[str, Any], live: Mapping[str, Any]
) -> Manifest:
    """A merge patch from `live` to `wanted`; empty where nothing would change.

    seen: what the controller looked at. A field or condition that came since is another
    writer's and stays; one that the controller saw and left out goes.
    """
    target = _bare(wanted)
    if "conditions" in wanted or "conditions" in live:
        target["conditions"] = _conditions(
            seen.get("conditions", ()), target.get("conditions", ()), live.get("conditions", ())
        )
    gone = {key: None for key in live if key in seen and key not in target}
    return _changes(live, target) | gone


def _bare(value: Any) -> Any:
    """Without empty texts: an API server of 1.20 takes them for null, and refuses these."""
    if isinstance(value, Mapping):
        return {key: _bare(inner) for key, inner in value.items() if inner != ""}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_bare(inner) for inner in value]
    return value


def _conditions(seen: Conditions, wanted: Conditions, live: Conditions) -> list[Mapping[str, Any]]:
    ours = {condition["type"] for condition in (*seen, *wanted)}
    return [*wanted, *(other for other in live if other["type"] not in ours)]


def _changes(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> Manifest:
    """RFC 7386: maps by field, lists whole, null takes away."""
    found: Manifest = {}
    for key, value in wanted.items():
        there = live.get(key)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            inner = _changes(there, value) | {k: None for k in there if k not in value}
            if inner:
                found[key] = inner
        elif there != value:
            found[key] = value
    return found

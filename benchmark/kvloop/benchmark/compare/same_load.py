"""Whether two runs had the same load. Pure."""

from __future__ import annotations

from typing import Any

from kvloop.benchmark.results.document import Report
from kvloop.shared_cache.errors import ConfigError

MISSING = "not given"


def differences(a: Report, b: Report) -> dict[str, tuple[Any, Any]]:
    """The load's flags that differ, with both values; nested ones by `outer.inner`."""
    ours, theirs = _flat(a.workload), _flat(b.workload)
    return {
        name: (ours.get(name, MISSING), theirs.get(name, MISSING))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name, MISSING) != theirs.get(name, MISSING)
    }


def refuse(found: dict[str, tuple[Any, Any]]) -> None:
    """Raises ConfigError that names what differs."""
    if found:
        each = "; ".join(f"{name}: {ours} and {theirs}" for name, (ours, theirs) in found.items())
        raise ConfigError(
            f"the two runs had different loads, so a ratio would say nothing ({each}); "
            "run both with the same flags, or add --different-load to compare them all the same"
        )


def _flat(workload: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in workload.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat

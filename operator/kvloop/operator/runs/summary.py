"""The summary that a run leaves behind (`kvloop.bench.summary/1`), as fields of the status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kvloop.operator.types.benchmark import ArmStatus, Latency

SCHEMA = "kvloop.bench.summary/1"
CONTROLS = ("bypassed", "all_miss")
"""Arms without reuse, the better control first."""

Summary = Mapping[str, Any]


def read_summary(text: str) -> Summary | None:
    """None of what is none: last lines of a log, nothing, or of another version."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        return None
    return found


def results(summary: Summary) -> dict[str, Any]:
    """Fields of the status, camelCase; those of numbers that were not measured are empty."""
    arms = {name: _part(arm) for name, arm in _part(summary.get("arms")).items()}
    control = next((name for name in CONTROLS if name in arms), "")
    with_reuse = arms.get("on", {})
    return {
        "durationSeconds": _number(summary.get("duration_s")),
        "arms": [
            _arm(name, arm).model_dump(by_alias=True, exclude_none=True)
            for name, arm in arms.items()
        ],
        "ttftWithReuse": _ttft_words(with_reuse),
        "ttftWithoutReuse": _ttft_words(arms.get(control, {})),
        "speedup": _speedup(summary),
        "hit": _percent(_part(with_reuse.get("later_turns")).get("hit_rate")),
    }


def _arm(name: str, arm: Summary) -> ArmStatus:
    later = _part(arm.get("later_turns"))
    ttft = _part(later.get("ttft_ms"))
    tiers = _part(later.get("hit_rate_by_tier"))
    return ArmStatus(
        arm=name,
        completed=int(arm.get("completed") or 0),
        failed=int(arm.get("failed") or 0),
        ttft=Latency(
            mean_ms=_number(ttft.get("mean")),
            p50_ms=_number(ttft.get("p50")),
            p99_ms=_number(ttft.get("p99")),
        ),
        hit_rate=_number(later.get("hit_rate")),
        hit_rate_by_tier={
            tier: share for tier, share in tiers.items() if _number(share) is not None
        },
        requests_per_second=_number(arm.get("requests_per_s")),
        output_tokens_per_second=_number(arm.get("output_tokens_per_s")),
    )


def _ttft_words(arm: Summary) -> str:
    ttft = _part(_part(arm.get("later_turns")).get("ttft_ms"))
    mean, p99 = _number(ttft.get("mean")), _number(ttft.get("p99"))
    return "" if mean is None or p99 is None else f"{mean:.4g}/{p99:.4g} ms"


def _speedup(summary: Summary) -> str:
    """Of later turns' first token, in the median; the summary has times with / times without."""
    claims = [_part(claim) for claim in summary.get("claims") or ()]
    for claim in claims:
        value = _number(claim.get("value"))
        if claim.get("name") == "ttft_later_turns" and claim.get("arm") == "on" and value:
            low, high = _number(claim.get("low")), _number(claim.get("high"))
            between = f" [{1 / high:.3g}, {1 / low:.3g}]" if low and high else ""
            return f"{1 / value:.3g}x{between}"
    return ""


def _percent(share: object) -> str:
    number = _number(share)
    return "" if number is None else f"{100 * number:.1f} %"


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None  # type: ignore[arg-type]  # just asked


def _part(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

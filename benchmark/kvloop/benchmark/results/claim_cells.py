"""The claims side by side: one row a measure, one column an arm and its control."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.benchmark.results.document import Claim

CLAIMS_TITLE = "arm / control (95 %; of times less is better; *: may be no difference)"
_NAMES = {
    "ttft_later_turns": "TTFT 2 on",
    "ttft": "TTFT all",
    "itl": "ITL",
    "tpot": "TPOT",
    "e2e": "whole answer",
    "output_rate": "output tokens/s",
}


def claim_cells(claims: Sequence[Claim]) -> tuple[list[str], list[list[str]]]:
    """Columns' heads and rows: ratios with their intervals."""
    pairs = list(dict.fromkeys((claim.arm, claim.control) for claim in claims))
    found = {(claim.name, claim.arm, claim.control): claim for claim in claims}
    heads = ["", *(f"{arm} / {control}" for arm, control in pairs)]
    return heads, [
        [_label(name), *(_cell(found.get((name, *pair))) for pair in pairs)]
        for name in dict.fromkeys(claim.name for claim in claims)
    ]


def _label(name: str) -> str:
    base, is_mean = name.removesuffix("_mean"), name.endswith("_mean")
    middle = "" if base == "output_rate" else " mean" if is_mean else " p50"
    return _NAMES.get(base, base) + middle


def _cell(claim: Claim | None) -> str:
    if claim is None:
        return "-"
    if claim.low is None or claim.high is None:
        return f"{claim.value:.2f} (-)"
    mark = "*" if claim.low <= 1 <= claim.high else ""
    return f"{claim.value:.2f} ({claim.low:.2f}-{claim.high:.2f}){mark}"

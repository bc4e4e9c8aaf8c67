"""The summary that a container leaves behind: its termination message.

Kubernetes shows at most 4,096 bytes of it. docs/bench-job.md describes its shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from kvloop.benchmark.results.document import ArmResult, Claim, Report, Savings, Spread, Summary

SCHEMA = "kvloop.bench.summary/1"
MAX_BYTES = 4096
"""Kubernetes cuts what is longer, in mid-JSON."""

Phase = Literal["Succeeded", "Failed"]
Reason = Literal[
    "Completed",
    "BadInput",
    "WarmUpFailed",
    "NothingAnswered",
    "RequestsFailed",
    "CutShort",
    "OutletFailed",
    "Crashed",
]
HEADLINES = ("ttft_later_turns", "output_rate", "e2e", "itl")
"""Claims that stay the longest."""
MAX_WORDS = 500
"""Characters of one free text: a server's error may be a page long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended, in the words that a status field takes."""

    phase: Phase
    reason: Reason
    message: str = ""


def summarize(report: Report | None, ending: Ending) -> bytes:
    """At most MAX_BYTES of JSON; the less important parts go first, and `left_out` names them."""
    document = _document(report, ending)
    left_out: list[str] = []
    content = _encode(document, left_out)
    for name, cut in _cuts(document):
        if len(content) <= MAX_BYTES:
            break
        cut()
        if len(_encode(document, left_out)) < len(content):
            left_out.append(name)
            content = _encode(document, left_out)
    assert len(content) <= MAX_BYTES, len(content)
    return content


def write_termination_message(report: Report | None, path: Path, ending: Ending) -> None:
    """Write in place: the file is a mount of the kubelet's and cannot be replaced. Raises OSError.

    `report` is None of a run that has none.
    """
    path.write_bytes(summarize(report, ending))


def _encode(document: dict[str, Any], left_out: list[str]) -> bytes:
    return msgspec.json.encode(document | ({"left_out": left_out} if left_out else {}))


def _document(report: Report | None, ending: Ending) -> dict[str, Any]:
    head = {
        "schema": SCHEMA,
        "phase": ending.phase,
        "reason": ending.reason,
        "message": shortened(ending.message, MAX_WORDS),
    }
    if report is None:
        return head
    return head | {
        "title": shortened(report.title, 100),
        "version": shortened(report.version, 40),
        "started_at": shortened(report.started_at, 40),
        "duration_s": _rounded(report.duration_s),
        "server": {
            "url": shortened(report.server.url, 200),
            "model": shortened(report.server.model, 100),
            "name": shortened(report.server.name, 40),
        },
        "is_cut_short": report.is_cut_short,
        "ceiling": _rounded(report.ceiling.rate) if report.ceiling else None,
        "arms": {arm.arm: _arm(arm) for arm in report.arms},
        "claims": [_claim(claim) for claim in sorted(report.claims, key=_importance)],
        "savings": _savings(report.savings) if report.savings else None,
        "answers_different": report.answers_different,
        "is_driver_bottleneck": report.driver.is_bottleneck if report.driver else None,
        "num_warnings": len(report.warnings),
        "warnings": [shortened(words, 160) for words in report.warnings[:5]],
    }


def _cuts(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What can go, the least important first; each is done only if there is still too much."""
    claims = document.get("claims", [])
    arms = document.get("arms", {})
    yield "warnings", lambda: document.update(warnings=[])
    yield "errors beyond 3 kinds", lambda: _cut_errors(arms, 3)
    yield "claims beyond 6", lambda: claims.__delitem__(slice(6, None))
    yield "savings", lambda: document.update(savings=None)
    yield "all_requests", lambda: [arm.pop("all_requests") for arm in arms.values()]
    yield "claims", claims.clear
    yield "errors", lambda: _cut_errors(arms, 0)
    yield (
        "message beyond 100 characters",
        lambda: document.update(message=shortened(document["message"], 100)),
    )
    yield "server", lambda: document.pop("server", None)


def _cut_errors(arms: dict[str, Any], kept: int) -> None:
    for arm in arms.values():
        arm["errors"] = dict(list(arm["errors"].items())[:kept])


def _arm(result: ArmResult) -> dict[str, Any]:
    return {
        "planned": result.counts.planned,
        "completed": result.counts.completed,
        "failed": result.counts.failed,
        "not_sent": result.counts.not_sent,
        "requests_per_s": _rounded(result.rates.requests_per_s),
        "output_tokens_per_s": _rounded(result.rates.output_tokens_per_s),
        "errors": {shortened(kind, 40): num for kind, num in result.errors.items()},
        "goodput": _rounded(result.goodput.share) if result.goodput else None,
        "later_turns": _summary(result.later_turns),
        "all_requests": _summary(result.all),
    }


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "ttft_ms": _spread(summary.ttft_ms),
        "itl_ms": _spread(summary.itl_ms),
        "hit_rate": _rounded(summary.hit_rate),
        "reusable_rate": _rounded(summary.reusable_rate),
        "hit_rate_by_tier": _tiers(summary),
    }


def _tiers(summary: Summary) -> dict[str, float | None] | None:
    if summary.sources is None or not summary.prompt_tokens:
        return None
    names = (
        "transfer_skipped", "device", "host", "storage", "storage_by_prefill", "storage_by_decode",
    )  # fmt: skip
    return {
        name: _rounded(getattr(summary.sources, name) / summary.prompt_tokens) for name in names
    }


def _spread(spread: Spread | None) -> dict[str, float | None] | None:
    if spread is None:
        return None
    return {name: _rounded(getattr(spread, name)) for name in ("mean", "p50", "p99")}


def _importance(claim: Claim) -> int:
    """What goes last when there is no room."""
    return HEADLINES.index(claim.name) if claim.name in HEADLINES else len(HEADLINES)


def _claim(claim: Claim) -> dict[str, Any]:
    numbers = {name: _rounded(getattr(claim, name)) for name in ("value", "low", "high")}
    return {"name": claim.name, "arm": claim.arm, "control": claim.control} | numbers


def _savings(savings: Savings) -> dict[str, Any]:
    names = ("gpu_s", "low", "high", "per_1000_requests_s", "price_per_1000_requests")
    return {name: _rounded(getattr(savings, name)) for name in names}


def _rounded(value: float | None) -> float | None:
    """Four significant digits: what a status needs, in few bytes."""
    return None if value is None else float(f"{value:.4g}")


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters, each of at most 4 bytes in JSON."""
    plain = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"

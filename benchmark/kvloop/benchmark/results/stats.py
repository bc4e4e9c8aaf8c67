"""Numbers out of samples. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields

from kvloop.benchmark.results.document import LengthSummary, Spread, Summary, TurnSummary
from kvloop.benchmark.sample import Sample, Sources


def percentile(ordered: Sequence[float], share: float) -> float:
    """Linear between the two nearest ranks of an ascending, non-empty sequence."""
    assert ordered and 0 <= share <= 1
    rank = share * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def spread_ms(seconds: Iterable[float]) -> Spread | None:
    """None of nothing."""
    ordered = sorted(1000 * value for value in seconds)
    if not ordered:
        return None
    return Spread(
        mean=math.fsum(ordered) / len(ordered),
        p50=percentile(ordered, 0.5),
        p90=percentile(ordered, 0.9),
        p99=percentile(ordered, 0.99),
        max=ordered[-1],
    )


def summarize(samples: Sequence[Sample]) -> Summary:
    """Totals and spreads; a rate that no sample can tell is None."""
    prompt = sum(s.prompt_tokens for s in samples)
    reusable = sum(s.reusable_tokens for s in samples)
    cached = _sum_known([s.cached_tokens for s in samples])
    return Summary(
        requests=len(samples),
        prompt_tokens=prompt,
        completion_tokens=sum(s.completion_tokens for s in samples),
        reusable_tokens=reusable,
        cached_tokens=cached,
        hit_rate=cached / prompt if cached is not None and prompt else None,
        reusable_rate=reusable / prompt if prompt else 0.0,
        ttft_ms=spread_ms(s.ttft_s for s in samples),
        itl_ms=spread_ms(gap for s in samples for gap in s.itl_s),
        tpot_ms=spread_ms(s.tpot_s for s in samples if s.tpot_s is not None),
        e2e_ms=spread_ms(s.e2e_s for s in samples),
        queued_ms=spread_ms(s.queued_s for s in samples),
        sources=_sum_sources([s.sources for s in samples]),
    )


def by_turn(samples: Sequence[Sample]) -> tuple[TurnSummary, ...]:
    """Of each turn that was answered, ascending."""
    turns = sorted({s.turn for s in samples})
    return tuple(
        TurnSummary(turn=turn, summary=summarize([s for s in samples if s.turn == turn]))
        for turn in turns
    )


def by_length(samples: Sequence[Sample]) -> tuple[LengthSummary, ...]:
    """Of prompts between neighbouring powers of two of tokens; ranges without any left out."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.prompt_tokens.bit_length(), []).append(sample)
    return tuple(
        LengthSummary(low=2**bits // 2, high=2**bits, summary=summarize(group))
        for bits, group in sorted(groups.items())
    )


def _sum_known(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    # A sum over some of the samples would pass for all of them.
    return sum(known) if known and len(known) == len(counts) else None


def _sum_sources(each: list[Sources | None]) -> Sources | None:
    known = [sources for sources in each if sources is not None]
    if not known or len(known) != len(each):
        return None
    names = (field.name for field in fields(Sources))
    return Sources(**{name: sum(getattr(s, name) for s in known) for name in names})

"""The numbers that are compared, each as a statistic of conversations. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from kvloop.benchmark.compare.comparison import Better, Scale
from kvloop.benchmark.compare.tracks import Track
from kvloop.benchmark.results.bootstrap import ByUnit, Quantile, Ratio, Statistic, mean
from kvloop.benchmark.results.document import Goodput
from kvloop.benchmark.results.goodput import Objectives
from kvloop.benchmark.sample import Sample

MIN_FOR_P99 = 100
"""Of fewer values the 99th percentile is next to the largest: chance, which no draw shows."""
MAX_VALUES = 20_000
"""Of one quantile: of more, every n-th of them in order of size stands for its neighbours."""

Keep: TypeAlias = Callable[[Sample], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number of one track."""

    name: str
    unit: str
    better: Better
    scale: Scale
    statistic: Statistic


def of_answers(track: Track, units: Sequence[int], turns: Sequence[int]) -> Iterator[Metric]:
    """Times and hit rates of the answers in `units`: all, the later turns, each of `turns`."""
    yield from _ttft(track, units, _any)
    yield from _ttft(track, units, _later, "_later")
    yield from _times("itl", [[gap for s in _of(track, u) for gap in s.itl_s] for u in units])
    yield from _times("tpot", [_known(s.tpot_s for s in _of(track, u)) for u in units])
    yield from _times("e2e", [[s.e2e_s for s in _of(track, u)] for u in units])
    yield from _hits(track, units, _any)
    yield from _hits(track, units, _later, "_later")
    for turn in turns:
        yield from _ttft(track, units, partial(_is_turn, turn), f"_turn_{turn}")


def of_load(track: Track, units: Sequence[int], goal: Goodput | None) -> Iterator[Metric]:
    """What the load came to, failures and all; goodput if there is a `goal`.

    A rate's draws know each conversation's amounts and how long it was held; how many were held at
    once stays as it was.
    """
    held = [_held_s(track, unit) for unit in units]
    at_once = sum(held) / track.seconds if track.seconds > 0 else 0.0
    tokens = [at_once * sum(s.completion_tokens for s in _of(track, u)) for u in units]
    answers = [at_once * len(_of(track, u)) for u in units]
    yield _metric("output_rate", "tokens/s", "higher", "ratio", Ratio(tokens, held))
    yield _metric("request_rate", "/s", "higher", "ratio", Ratio(answers, held))
    failed = [track.failures.get(u, 0) for u in units]
    sent = [track.failures.get(u, 0) + len(_of(track, u)) for u in units]
    yield _metric("error_share", "%", "lower", "points", Ratio(failed, sent))
    if goal is not None:
        yield _metric("goodput", "%", "higher", "points", _goodput(track, goal, units, sent))


def thin(values: ByUnit, most: int) -> ByUnit:
    """Of more than `most` values, evenly many of each size; their quantiles stay where they are."""
    num = sum(map(len, values))
    if num <= most:
        return values
    step = -(-num // most)
    ordered = sorted((value, unit) for unit, each in enumerate(values) for value in each)
    kept: list[list[float]] = [[] for _ in values]
    for value, unit in ordered[step // 2 :: step]:
        kept[unit].append(value)
    return kept


def _of(track: Track, unit: int) -> Sequence[Sample]:
    return track.samples.get(unit, ())


def _any(sample: Sample) -> bool:
    return True


def _later(sample: Sample) -> bool:
    return sample.turn > 1


def _is_turn(turn: int, sample: Sample) -> bool:
    return sample.turn == turn


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _metric(name: str, unit: str, better: Better, scale: Scale, statistic: Statistic) -> Metric:
    return Metric(name=name, unit=unit, better=better, scale=scale, statistic=statistic)


def _ttft(track: Track, units: Sequence[int], keep: Keep, group: str = "") -> Iterator[Metric]:
    values = [[s.ttft_s for s in _of(track, unit) if keep(s)] for unit in units]
    return _times("ttft", values, group)


def _times(name: str, seconds: ByUnit, group: str = "") -> Iterator[Metric]:
    values = [[1000 * value for value in each] for each in seconds]
    num = sum(map(len, values))
    if not num:
        return
    yield _metric(f"{name}_mean{group}", "ms", "lower", "ratio", mean(values))
    few = thin(values, MAX_VALUES)
    yield _metric(f"{name}_p50{group}", "ms", "lower", "ratio", Quantile(few, 0.5))
    if num >= MIN_FOR_P99:
        yield _metric(f"{name}_p99{group}", "ms", "lower", "ratio", Quantile(few, 0.99))


def _hits(track: Track, units: Sequence[int], keep: Keep, group: str = "") -> Iterator[Metric]:
    cached, prompt = [], []
    for unit in units:
        samples = [s for s in _of(track, unit) if keep(s)]
        known = _known(s.cached_tokens for s in samples)
        if len(known) < len(samples):
            return  # a rate over some of the answers would pass for all of them
        cached.append(sum(known))
        prompt.append(sum(s.prompt_tokens for s in samples))
    if sum(prompt):
        yield _metric(f"hit_rate{group}", "%", "higher", "points", Ratio(cached, prompt))


def _goodput(track: Track, goal: Goodput, units: Sequence[int], sent: Sequence[int]) -> Statistic:
    """Met of planned requests; those that were not sent are spread evenly over conversations."""
    objectives = Objectives(ttft_ms=goal.ttft_ms, tpot_ms=goal.tpot_ms)
    share = sum(sent) / track.planned if track.planned else 0.0
    met = [share * sum(map(objectives.are_met, _of(track, unit))) for unit in units]
    return Ratio(met, sent)


def _held_s(track: Track, unit: int) -> float:
    """From its first request to its last answer, think time included; its branches' added."""
    spans: dict[int, tuple[float, float]] = {}
    for one in _of(track, unit):
        began, ended = spans.get(one.conversation, (math.inf, 0.0))
        spans[one.conversation] = min(began, one.sent_at), max(ended, one.ended_at)
    return math.fsum(ended - began for began, ended in spans.values())

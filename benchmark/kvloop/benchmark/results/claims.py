"""Every claim with its control: how many times sooner, and how sure that is. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.results import bootstrap
from kvloop.benchmark.results.bootstrap import Interval, Quantile, Ratio
from kvloop.benchmark.results.document import Claim
from kvloop.benchmark.results.pairs import Pair, Values, pair
from kvloop.benchmark.results.run_data import Part, RunData
from kvloop.benchmark.sample import Sample

PAIRS: tuple[tuple[Arm, Arm], ...] = (
    ("on", "bypassed"),
    ("on", "all_miss"),
    ("l3_only", "bypassed"),
    ("all_miss", "bypassed"),
)
"""An arm and its control; the last: what caching costs where nothing can hit."""
_CIRCUMSTANCES: dict[Arm, str] = {
    "on": "",
    "l3_only": "with the shared cache alone, ",
    "all_miss": "where nothing can hit, ",
    "bypassed": "with the cache bypassed, ",
}
_CONTROLS: dict[Arm, str] = {
    "bypassed": "with the cache bypassed",
    "all_miss": "where nothing can hit",
    "l3_only": "with the shared cache alone",
    "on": "with the cache on",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    name: str
    subject: str
    """Of the sentence."""
    lower: str
    """Ends it where arm / control is below 1."""
    higher: str
    of: Values


def _ttft(sample: Sample) -> Sequence[float]:
    return (sample.ttft_s,)


def _later_ttft(sample: Sample) -> Sequence[float]:
    return (sample.ttft_s,) if sample.turn > 1 else ()


def _itl(sample: Sample) -> Sequence[float]:
    return sample.itl_s


def _tpot(sample: Sample) -> Sequence[float]:
    return () if sample.tpot_s is None else (sample.tpot_s,)


def _e2e(sample: Sample) -> Sequence[float]:
    return (sample.e2e_s,)


_MEASURES = (
    _Measure(
        name="ttft_later_turns",
        subject="later turns' first token comes",
        lower="sooner",
        higher="later",
        of=_later_ttft,
    ),
    _Measure(
        name="ttft", subject="the first token comes", lower="sooner", higher="later", of=_ttft
    ),
    _Measure(name="itl", subject="the next token comes", lower="sooner", higher="later", of=_itl),
    _Measure(
        name="tpot", subject="an answer's tokens come", lower="faster", higher="slower", of=_tpot
    ),
    _Measure(name="e2e", subject="a whole answer comes", lower="sooner", higher="later", of=_e2e),
)


def claims(run: RunData) -> tuple[Claim, ...]:
    """For each arm that ran with a control: medians (`NAME`) and means (`NAME_mean`)."""
    return tuple(
        claim
        for arm, control in pairs_of(run.arms)
        for claim in _claims_of(run, pair(run, arm, control))
    )


def pairs_of(arms: Sequence[Arm]) -> tuple[tuple[Arm, Arm], ...]:
    """Those of `PAIRS` whose both sides ran."""
    return tuple((arm, control) for arm, control in PAIRS if {arm, control} <= set(arms))


def _claims_of(run: RunData, both: Pair) -> Iterator[Claim]:
    for measure in _MEASURES:
        ours, theirs = both.values(measure.of)
        if not ours:
            continue
        median = bootstrap.ratio(Quantile(ours, 0.5), Quantile(theirs, 0.5))
        mean = bootstrap.ratio(bootstrap.mean(ours), bootstrap.mean(theirs))
        for name, middle, found in (
            (measure.name, "in the median", median),
            (f"{measure.name}_mean", "on average", mean),
        ):
            if _is_ratio(found):
                yield _claim(both, name, found, _words(both, measure, middle, found), len(ours))
    rate = _output_rate(run, both)
    if rate is not None and both.units:
        yield _claim(both, "output_rate", rate, _rate_words(both, rate), len(both.units))


def _is_ratio(interval: Interval) -> bool:
    """Whether no side is 0, as the time between tokens is where they arrive together."""
    ends = (interval.value, interval.low, interval.high)
    return all(end is None or 0 < end < math.inf for end in ends)


def _claim(both: Pair, name: str, interval: Interval, words: str, num: int) -> Claim:
    """`num`: conversations that have such a number; some have no later turn."""
    return Claim(
        name=name,
        arm=both.arm,
        control=both.control,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        num_conversations=num,
        words=words,
    )


def _words(both: Pair, measure: _Measure, middle: str, interval: Interval) -> str:
    is_lower = interval.value < 1
    how = measure.lower if is_lower else measure.higher
    times = _times(interval, is_inverted=is_lower)
    return (
        f"{_CIRCUMSTANCES[both.arm]}{measure.subject} {times[0]} x {how} {middle}"
        f"{times[1]} than {_CONTROLS[both.control]}"
    )


def _rate_words(both: Pair, interval: Interval) -> str:
    is_lower = interval.value < 1
    times = _times(interval, is_inverted=is_lower, over=f" over {_rounds(interval.num_units)}")
    return (
        f"{_CIRCUMSTANCES[both.arm]}the server gives {times[0]} x "
        f"{'fewer' if is_lower else 'more'} output tokens a second{times[1]} "
        f"than {_CONTROLS[both.control]}"
    )


def _rounds(num: int) -> str:
    return "1 round" if num == 1 else f"{num} rounds"


def _times(interval: Interval, *, is_inverted: bool, over: str = "") -> tuple[str, str]:
    """How many times, and its interval in brackets."""
    value, low, high = interval.value, interval.low, interval.high
    if low is None or high is None:
        few = f"{over.removeprefix(' over ')}: " if over else ""
        return _number(1 / value if is_inverted else value), f" ({few}too few for an interval)"
    chance = "; may be no difference" if low <= 1 <= high else ""
    if is_inverted:
        value, low, high = 1 / value, 1 / high, 1 / low
    return _number(value), f" (95 %{over}: {_number(low)} to {_number(high)}{chance})"


def _number(value: float) -> str:
    return f"{value:.1f}" if value >= 20 else f"{value:.2f}"


def _output_rate(run: RunData, both: Pair) -> Interval | None:
    """Of all output tokens over all seconds; drawn by rounds, as time is no conversation's."""
    ours: list[Part] = []
    theirs: list[Part] = []
    for step, round_ in product(run.steps, run.rounds):
        one, other = run.part(both.arm, step, round_), run.part(both.control, step, round_)
        if all(part.samples and part.seconds > 0 for part in (one, other)):
            ours.append(one)
            theirs.append(other)
    if not ours:
        return None
    return bootstrap.ratio(_rate(ours), _rate(theirs))


def _rate(parts: Sequence[Part]) -> Ratio:
    tokens = [sum(s.completion_tokens for s in part.samples) for part in parts]
    return Ratio(tokens, [part.seconds for part in parts])

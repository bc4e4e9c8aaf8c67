"""Whether the machine stayed as it was while the arms took turns. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from statistics import fmean, median

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.results import bootstrap
from kvloop.benchmark.results.bootstrap import ByUnit, Interval, Quantile
from kvloop.benchmark.results.document import Claim
from kvloop.benchmark.results.pairs import Pair, pair
from kvloop.benchmark.results.run_data import RunData
from kvloop.benchmark.sample import Sample

DRIFT = 0.2
CRASS = 2.0
"""How many times slower or faster is no chance, even where there are too few for an interval."""


def unsteadiness(run: RunData, claims: Sequence[Claim]) -> Iterator[str]:
    """What tells that time, not the arm, made a difference."""
    if len(run.arms) > 1 and len(run.rounds) * len(run.steps) == 1:
        yield (
            "each arm ran once, one after the other: a server that warms up or slows down would "
            "pass for a difference (--rounds 2 or more)"
        )
    for arm, step in product(run.arms, run.steps):
        change = _drift(run, arm, step)
        if change is not None and _is_more_than_chance(change):
            yield (
                f"arm {arm}: the median TTFT of its later rounds is {change.value - 1:+.0%} "
                "against its earlier ones': the machine or the server changed during the run"
            )
    yield from _unlike_rounds(run, claims)


def _drift(run: RunData, arm: Arm, step: int) -> Interval | None:
    """Of the median TTFT, later rounds by earlier ones; None: little, or of unlike loads."""
    half = len(run.rounds) // 2
    if not half:
        return None
    earlier, later = (
        [s for round_ in rounds for s in run.part(arm, step, round_).samples]
        for rounds in (run.rounds[:half], run.rounds[-half:])
    )
    if min(len(earlier), len(later)) < 10:
        return None
    lengths = [fmean(s.prompt_tokens for s in samples) for samples in (earlier, later)]
    if not lengths[0] or abs(lengths[1] / lengths[0] - 1) > 0.1:
        return None
    seen = [median(s.ttft_s for s in samples) for samples in (earlier, later)]
    if not seen[0] or abs(seen[1] / seen[0] - 1) <= DRIFT:
        return None
    ours, theirs = (Quantile(_ttft_by_unit(run, samples), 0.5) for samples in (later, earlier))
    return bootstrap.ratio(ours, theirs, is_paired=False)


def _ttft_by_unit(run: RunData, samples: Sequence[Sample]) -> ByUnit:
    units: dict[int, list[float]] = {}
    for sample in samples:
        units.setdefault(run.units[sample.conversation], []).append(sample.ttft_s)
    return list(units.values())


def _is_more_than_chance(change: Interval) -> bool:
    if change.low is None or change.high is None:
        return not 1 / CRASS < change.value < CRASS
    return not change.low <= 1 <= change.high


def _unlike_rounds(run: RunData, claims: Sequence[Claim]) -> Iterator[str]:
    """Conversations of one round share what befell the machine: drawing them does not show it."""
    for claim in claims:
        if claim.name not in ("ttft_later_turns", "ttft") or not is_sure(claim):
            continue
        both = pair(run, claim.arm, claim.control)
        ratios = by_round(both, is_later=claim.name == "ttft_later_turns")
        if _disagree(ratios):
            which = "of later turns" if claim.name == "ttft_later_turns" else "of all turns"
            yield (
                f"{claim.arm} against {claim.control}: rounds disagree on the TTFT {which} (ratios "
                f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}): the difference may be the "
                "machine's; more --rounds, or a quieter machine"
            )


def _disagree(ratios: Sequence[float]) -> bool:
    """Of few rounds: on the direction; of more: so much that, drawn again, they could do so."""
    if len(ratios) < bootstrap.MIN_UNITS:
        return bool(ratios) and min(ratios) < 1 < max(ratios)
    drawn = bootstrap.single(bootstrap.mean([[math.log(ratio)] for ratio in ratios]))
    assert drawn.low is not None and drawn.high is not None
    return drawn.low <= 0 <= drawn.high


def is_sure(claim: Claim) -> bool:
    """Whether its interval leaves 1 out."""
    return claim.low is not None and claim.high is not None and not claim.low <= 1 <= claim.high


def by_round(both: Pair, *, is_later: bool) -> list[float]:
    """Each round's ratio of median TTFTs, over the requests that both arms answered."""
    ours: dict[tuple[int, int], list[float]] = {}
    theirs: dict[tuple[int, int], list[float]] = {}
    for unit in both.units:
        for samples, into in ((unit.arm, ours), (unit.control, theirs)):
            for sample in samples:
                if sample.turn > 1 or not is_later:
                    into.setdefault((sample.step, sample.round), []).append(sample.ttft_s)
    rounds = sorted(ours.keys() & theirs.keys())
    medians = [(median(ours[each]), median(theirs[each])) for each in rounds]
    return [one / other for one, other in medians if one and other]

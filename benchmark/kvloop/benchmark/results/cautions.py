"""What a reader must know before believing a report. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, median

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.results import bootstrap
from kvloop.benchmark.results.claims import pairs_of
from kvloop.benchmark.results.document import ArmResult, Claim
from kvloop.benchmark.results.pairs import Pair, pair
from kvloop.benchmark.results.run_data import Part, RunData
from kvloop.benchmark.sample import Sample

POSSIBLE = 0.05
"""Share of the prompt tokens: below it, that nothing hits says nothing."""
WEAK = 0.5
"""Of what is possible: fewer hits are a fault until explained."""
MOST = 0.9
"""Of the planned requests: with fewer the load's ceiling says nothing of what was sent."""
DRIFT = 0.2
LATE_S = 1.0
CUT_SHORT = "the run ended before its load did: arms may have held different conversations"
_TEMPLATE_TOKENS = 64
"""With text every prompt may begin with the template's own words."""


def cautions(run: RunData, arms: Sequence[ArmResult], claims: Sequence[Claim]) -> tuple[str, ...]:
    """The gravest first."""
    return tuple(
        line
        for part in (
            _failures(run, arms),
            _weak_reuse(run, arms),
            _false_controls(run, arms),
            _warm_starts(run),
            _above_ceiling(run, arms),
            _unlike_arms(run, arms),
            _driver(run),
            _too_few(run),
            _order(run),
            _unlike_rounds(run, claims),
            _answers(arms),
            iter(run.driven.warnings),
        )
        for line in part
    )


def possible_rate(run: RunData, arm: ArmResult) -> float:
    """The most that its hit rate can be, by the load's count or by the histories heard."""
    ceiling, counts = run.workload.ceiling, arm.counts
    if ceiling is None or counts.completed < MOST * counts.planned:  # it is of the whole load
        return arm.all.reusable_rate
    return max(arm.all.reusable_rate, ceiling.rate)


def _weak_reuse(run: RunData, arms: Sequence[ArmResult]) -> Iterator[str]:
    for arm in arms:
        possible, hit = possible_rate(run, arm), arm.all.hit_rate
        if arm.arm not in ("on", "l3_only") or not arm.all.requests or possible < POSSIBLE:
            continue
        if hit is None:
            yield f"{arm.arm}: the server reports no cached tokens: its hit rate is unknown"
        elif hit == 0:
            yield f"NO REUSE: arm {arm.arm} hit nothing, where {possible:.1%} can hit"
        elif hit < WEAK * possible:
            yield (
                f"WEAK REUSE: arm {arm.arm} hit {hit:.1%} of its prompt tokens, where "
                f"{possible:.1%} can hit: less than half; tiers too small, not reachable, or off?"
            )


def _false_controls(run: RunData, arms: Sequence[ArmResult]) -> Iterator[str]:
    is_text = run.workload.content == "text"
    for arm in arms:
        cached = arm.all.cached_tokens or 0
        allowed = _TEMPLATE_TOKENS * arm.all.requests if is_text else 0
        if arm.arm == "bypassed" and cached:
            yield (
                f"arm bypassed hit the cache ({cached} tokens): the server did not bypass it, "
                "and the arm is no control"
            )
        if arm.arm == "all_miss" and cached > allowed:
            yield (
                f"arm all_miss hit the cache ({cached} tokens), though its prompts begin "
                "differently: it is no control"
            )


def _warm_starts(run: RunData) -> Iterator[str]:
    for arm in run.arms:
        if arm in ("on", "l3_only") and any(_is_warm(run, arm, step) for step in run.steps):
            yield (
                f"arm {arm} began warm: its first requests hit pages of an earlier run or of "
                "another arm; the server ignores cache_salt? (--salting prompt, or another --seed)"
            )


def _is_warm(run: RunData, arm: Arm, step: int) -> bool:
    """Whether all requests hit that were sent before the step's first token came."""
    samples = run.part(arm, step).samples
    first = min((s.sent_at + s.ttft_s for s in samples), default=0.0)
    # One of them was computed before all others, and nothing it could rightly hit was there.
    allowed = _TEMPLATE_TOKENS if run.workload.content == "text" else 0
    early = [s for s in samples if s.sent_at < first]
    return bool(early) and all((s.cached_tokens or 0) > allowed for s in early)


def _above_ceiling(run: RunData, arms: Sequence[ArmResult]) -> Iterator[str]:
    ceiling = run.workload.ceiling
    for arm in arms:
        hit, is_whole = arm.all.hit_rate, arm.counts.completed == arm.counts.planned
        if ceiling is not None and is_whole and hit is not None and hit > ceiling.rate + 0.005:
            yield (
                f"arm {arm.arm} hit {hit:.1%}, above the {ceiling.rate:.1%} that the load can "
                "reuse: some of its pages were there before the run"
            )


def _failures(run: RunData, arms: Sequence[ArmResult]) -> Iterator[str]:
    if not run.driven.samples:
        yield "NO ANSWERS: not one request was answered"
    if run.driven.is_cut_short:
        yield CUT_SHORT


def _unlike_arms(run: RunData, arms: Sequence[ArmResult]) -> Iterator[str]:
    lost = {arm.arm: arm.counts.failed + arm.counts.not_sent for arm in arms}
    if len(set(lost.values())) > 1:
        each = ", ".join(f"{arm} {num}" for arm, num in lost.items())
        yield f"arms lost different numbers of requests ({each}): rates and goodput compare badly"
    pairs = [(arm, control, pair(run, arm, control)) for arm, control in pairs_of(run.arms)]
    left_out = [
        f"{two.num_left_out} of {arm} against {control}"
        for arm, control, two in pairs
        if two.num_left_out
    ]
    if left_out:
        yield (
            "conversations that failed or ended otherwise in one arm are left out of what compares "
            f"it with another: {', '.join(left_out)}"
        )
    for arm_result in arms:
        if arm_result.counts.short_answers:
            yield (
                f"{arm_result.counts.short_answers} answers of arm {arm_result.arm} had fewer "
                "tokens than were asked for: rates and end-to-end times compare badly"
            )


def _driver(run: RunData) -> Iterator[str]:
    if run.driven.cost.is_bottleneck:
        yield run.driven.cost.words
    timed = [s.late_s for s in run.driven.samples if _is_due(run, s)]
    if timed and median(timed) > LATE_S:
        yield (
            f"half of the requests were sent more than {median(timed):.1f} s after they were due: "
            "the server did not keep up with what was offered"
        )


def _is_due(run: RunData, sample: Sample) -> bool:
    """Whether it had a time of its own; a conversation's later turns wait for answers, too."""
    turns = run.workload.conversations[sample.conversation].turns
    return run.is_open or bool(turns and turns[0].at_s is not None)


def _too_few(run: RunData) -> Iterator[str]:
    num = len(set(run.units.values()))
    if len(run.arms) > 1 and num < bootstrap.MIN_UNITS:
        yield (
            f"{num} conversations are too few for intervals: the ratios may be chance "
            f"(want {bootstrap.MIN_UNITS} or more)"
        )


def _order(run: RunData) -> Iterator[str]:
    if len(run.arms) > 1 and len(run.rounds) * len(run.steps) == 1:
        yield (
            "each arm ran once, one after the other: a server that warms up or slows down would "
            "pass for a difference (--rounds 2 or more)"
        )
    for arm in run.arms:
        for step in run.steps:
            first, last = (run.part(arm, step, r) for r in (run.rounds[0], run.rounds[-1]))
            change = _drift(first, last)
            if change is not None and abs(change) > DRIFT:
                yield (
                    f"arm {arm}: its last round's median TTFT is {change:+.0%} against its first "
                    "round's: the machine or the server changed during the run"
                )


def _unlike_rounds(run: RunData, claims: Sequence[Claim]) -> Iterator[str]:
    """Conversations of one round share what befell the machine: drawing them does not show it."""
    for claim in claims:
        if claim.name not in ("ttft_later_turns", "ttft") or not is_sure(claim):
            continue
        both = pair(run, claim.arm, claim.control)
        ratios = by_round(both, is_later=claim.name == "ttft_later_turns")
        if ratios and min(ratios) < 1 < max(ratios):
            which = "of later turns" if claim.name == "ttft_later_turns" else "of all turns"
            yield (
                f"{claim.arm} against {claim.control}: rounds disagree on the TTFT {which} (ratios "
                f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}): the difference may be the "
                "machine's; more --rounds, or a quieter machine"
            )


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
    return [one / other for one, other in medians if other]


def _drift(first: Part, last: Part) -> float | None:
    """Of the median TTFT; None where the rounds' loads are not alike."""
    if len(first.samples) < 10 or len(last.samples) < 10:
        return None
    lengths = [fmean(s.prompt_tokens for s in part.samples) for part in (first, last)]
    if not lengths[0] or abs(lengths[1] / lengths[0] - 1) > 0.1:
        return None
    before, after = (median(s.ttft_s for s in part.samples) for part in (first, last))
    return after / before - 1 if before else None


def _answers(arms: Sequence[ArmResult]) -> Iterator[str]:
    fallbacks = {arm.arm: sum(arm.fallbacks.values()) for arm in arms if arm.fallbacks}
    if fallbacks:
        each = ", ".join(f"{arm} {num}" for arm, num in fallbacks.items())
        yield f"answers by a fallback ({each}): those requests did not go the usual way"

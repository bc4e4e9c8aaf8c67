"""What a reader must know before believing a report. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.results import bootstrap
from kvloop.benchmark.results.claims import pairs_of
from kvloop.benchmark.results.document import ArmResult, Claim
from kvloop.benchmark.results.pairs import pair
from kvloop.benchmark.results.run_data import RunData
from kvloop.benchmark.results.steadiness import unsteadiness
from kvloop.benchmark.sample import Sample

POSSIBLE = 0.05
"""Share of the prompt tokens: below it, that nothing hits says nothing."""
WEAK = 0.5
"""Of what is possible: fewer hits are a fault until explained."""
MOST = 0.9
"""Of the planned requests: with fewer the load's ceiling says nothing of what was sent."""
UNLIKE = 0.01
"""Of the planned requests: arms that lost so many more than others do not compare."""
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
            unsteadiness(run, claims),
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
            yield f"{arm.arm}: {_unknown_hits(run, arm)}: its hit rate is unknown"
        elif hit == 0:
            yield f"NO REUSE: arm {arm.arm} hit nothing, where {possible:.1%} can hit"
        elif hit < WEAK * possible:
            yield (
                f"WEAK REUSE: arm {arm.arm} hit {hit:.1%} of its prompt tokens, where "
                f"{possible:.1%} can hit: less than half; tiers too small, not reachable, or off?"
            )


def _unknown_hits(run: RunData, arm: ArmResult) -> str:
    num = sum(sample.cached_tokens is None for sample in run.part(arm.arm).samples)
    if num == arm.all.requests:
        return "the server reports no cached tokens"
    return f"{num} of {arm.all.requests} answers report no cached tokens"


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
        if arm.arm == "l3_only" and (elsewhere := _not_from_l3(arm)):
            yield (
                f"arm l3_only hit other tiers than L3 ({elsewhere} tokens): it does not show the "
                "shared cache alone"
            )
        if arm.arm == "all_miss" and cached > allowed:
            yield (
                f"arm all_miss hit the cache ({cached} tokens), though its prompts begin "
                "differently: it is no control"
            )


def _not_from_l3(arm: ArmResult) -> int:
    sources = arm.all.sources
    if sources is None:
        return 0
    return sources.device + sources.host + sources.transfer_skipped


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
    if max(lost.values()) - min(lost.values()) > UNLIKE * max(a.counts.planned for a in arms):
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


def _answers(arms: Sequence[ArmResult]) -> Iterator[str]:
    fallbacks = {arm.arm: sum(arm.fallbacks.values()) for arm in arms if arm.fallbacks}
    if fallbacks:
        each = ", ".join(f"{arm} {num}" for arm, num in fallbacks.items())
        yield f"answers by a fallback ({each}): those requests did not go the usual way"

"""What the run showed, in plain words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.page import looks, units
from kvloop.benchmark.results.cautions import MOST
from kvloop.benchmark.results.document import ArmResult, Claim, Report, Savings, Summary

_CONTROLS: tuple[Arm, ...] = ("bypassed", "all_miss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A number that stands by itself."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The first sentence is the answer; the others bound it."""

    headline: str
    sentences: tuple[str, ...]
    tiles: tuple[Tile, ...]
    claims: tuple[str, ...]
    """What each other arm was against its control, later turns' first tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """The requests that the verdict is of."""

    what: str
    label: str
    claim: str
    summary: Callable[[ArmResult], Summary]

    def median(self, arm: ArmResult) -> str:
        spread = self.summary(arm).ttft_ms
        return units.duration(spread.p50 if spread else None)


_LATER = _Scope(
    what="first token of a later turn",
    label="first token of later turns",
    claim="ttft_later_turns",
    summary=lambda arm: arm.later_turns,
)
_ALL = _Scope(what="first token", label="first token", claim="ttft", summary=lambda arm: arm.all)
"""Of loads whose conversations have one turn each: they share beginnings, or nothing."""


def judge(report: Report) -> Verdict:
    """Of any report, also one in which nothing was answered."""
    return Verdict(
        headline=_headline(report),
        sentences=tuple(_sentences(report)),
        tiles=tuple(_tiles(report)),
        claims=tuple(_claims(report)),
    )


def main_arm(report: Report) -> ArmResult | None:
    """`on`, else the first arm that answered anything."""
    answered = [a for a in report.arms if a.all.requests]
    return next((a for a in answered if a.arm == "on"), answered[0] if answered else None)


def control_of(report: Report, arm: ArmResult) -> ArmResult | None:
    """The arm without reuse that answered what this one did."""
    summary = _scope(arm).summary
    for name in _CONTROLS:
        for other in report.arms:
            if other.arm == name != arm.arm and summary(other).ttft_ms is not None:
                return other
    return None


def _scope(arm: ArmResult) -> _Scope:
    return _LATER if arm.later_turns.ttft_ms is not None else _ALL


def _headline(report: Report) -> str:
    arm = main_arm(report)
    if arm is None:
        return "No request was answered: this run measured nothing."
    scope, control = _scope(arm), control_of(report, arm)
    took = scope.median(arm)
    single = "" if scope is _LATER else " No conversation had a second turn."
    if control is None:
        return (
            f"The {scope.what} came after {took} (median). This run has no arm without reuse "
            f"beside it: it cannot say what reuse saved.{single}"
        )
    with_what = "With reuse" if arm.arm == "on" else f"In the arm “{looks.NAMES[arm.arm]}”"
    start = f"{with_what} the {scope.what} comes after {took} instead of {scope.median(control)}"
    claim = _claim(report, arm.arm, control.arm, scope.claim)
    if claim is None:
        return f"{start} (medians).{single}"
    return f"{start}: {_how_much(claim, _is_whole(arm) and _is_whole(control))}.{single}"


def _claim(report: Report, arm: Arm, control: Arm, name: str) -> Claim | None:
    names = (c for c in report.claims if c.arm == arm and c.control == control)
    return next((c for c in names if c.name == name), None)


def _claims(report: Report) -> Iterator[str]:
    """All but the headline's."""
    arm = main_arm(report)
    control = control_of(report, arm) if arm else None
    name = _scope(arm).claim if arm else ""
    told = _claim(report, arm.arm, control.arm, name) if arm and control else None
    for claim in report.claims:
        if claim.name == name and claim is not told:
            held = units.count(claim.num_conversations, "conversation")
            yield f"{claim.words[:1].upper()}{claim.words[1:]} (from {held})."


def _is_whole(arm: ArmResult) -> bool:
    return arm.counts.completed == arm.counts.planned


def _how_much(claim: Claim, is_of_all: bool) -> str:
    """Of a ratio of times: so many times sooner, or later, or neither."""
    low, high, is_sooner = claim.low, claim.high, claim.value < 1
    factor, word = (1 / claim.value, "sooner") if is_sooner else (claim.value, "later")
    held = units.count(claim.num_conversations, "conversation")
    if not is_of_all:
        held = f"the {held} that both arms answered"
    if low is None or high is None:
        return f"{factor:.2f} x {word}, but {held} are too few to say how sure that is"
    if low <= 1 <= high:
        ratio = f"{claim.value:.2f}, 95 % between {low:.2f} and {high:.2f}"
        return f"no difference can be shown (ratio {ratio}, from {held})"
    ends = (1 / high, 1 / low) if is_sooner else (low, high)
    return f"{factor:.2f} x {word} (95 % between {ends[0]:.2f} and {ends[1]:.2f}, from {held})"


def _sentences(report: Report) -> Iterator[str]:
    yield _answered(report)
    arm = main_arm(report)
    if arm is not None:
        yield _hits(report, arm)
        yield from _whole_answers(report, arm)
    if report.savings is not None:
        yield _saved(report.savings)
    if report.answers_compared and not report.answers_different:
        yield (
            f"All {units.count(report.answers_compared, 'answer')} that several arms gave were "
            "the same in each."
        )


def _answered(report: Report) -> str:
    planned = sum(a.counts.planned for a in report.arms)
    completed = sum(a.counts.completed for a in report.arms)
    arms = f"{len(report.arms)} arms" if len(report.arms) > 1 else "one arm"
    took = units.duration(1000 * report.duration_s)
    num = "All" if completed == planned else f"{units.count(completed)} of"
    return f"{num} {units.count(planned)} requests of {arms} were answered, within {took}."


def _whole_answers(report: Report, arm: ArmResult) -> Iterator[str]:
    """A sooner first token may be paid for by the tokens after it."""
    control = control_of(report, arm)
    claim = _claim(report, arm.arm, control.arm, "e2e") if control else None
    if control is not None and claim is not None:
        much = _how_much(claim, _is_whole(arm) and _is_whole(control))
        yield f"The end of an answer (median over all turns): {much}."


def _hits(report: Report, arm: ArmResult) -> str:
    hit, all_hit = arm.later_turns.hit_rate, arm.all.hit_rate
    if all_hit is None:
        return "The server does not report how many prompt tokens it had cached."
    most = units.share(_possible(report, arm))
    allowed = (
        f"where {'the load' if _is_judged(report, arm) else 'what was answered'} allows {most}"
    )
    if hit is None or not arm.later_turns.requests:
        return f"{units.share(all_hit)} of the prompt tokens came from the cache, {allowed}."
    return (
        f"{units.share(hit)} of later turns' prompt tokens came from the cache, of "
        f"{units.share(arm.later_turns.reusable_rate)} that their own conversations allow; over "
        f"all turns {units.share(all_hit)}, {allowed}."
    )


def _saved(savings: Savings) -> str:
    is_saved = savings.gpu_s >= 0
    took = f"{units.digits(abs(savings.per_1000_requests_s))} seconds of computing"
    cost = ""
    if savings.price_per_1000_requests is not None:
        cost = (
            f", {units.digits(abs(savings.price_per_1000_requests))} at a price of "
            f"{units.digits(savings.price_per_gpu_hour or 0)} an hour"
        )
    words = (
        f"Reuse saved {took} per 1,000 requests"
        if is_saved
        else f"Reuse saved no computing, it took {took} more per 1,000 requests"
    )
    return f"{words}{cost}{_surely(savings)} ({savings.how})."


def _surely(savings: Savings) -> str:
    if savings.low is None or savings.high is None:
        return "; how sure that is cannot be told"
    if savings.low <= 0 <= savings.high:
        return "; that may be chance, as its 95 % interval reaches to both sides of nothing"
    return ""


def _tiles(report: Report) -> Iterator[Tile]:
    arm = main_arm(report)
    if arm is None:
        return
    name, control = looks.NAMES[arm.arm], control_of(report, arm)
    scope = _scope(arm)
    yield Tile(
        label=scope.label,
        value=scope.median(arm),
        detail=f"median, {name}" + _without(control, scope.median),
    )
    if arm.all.hit_rate is not None:
        yield Tile(
            label="prompt tokens from the cache",
            value=units.share(arm.all.hit_rate),
            detail=f"{name}, all turns; {units.share(_possible(report, arm))} possible",
        )
    yield Tile(
        label="output tokens a second",
        value=units.digits(arm.rates.output_tokens_per_s),
        detail=name + _without(control, lambda a: units.digits(a.rates.output_tokens_per_s)),
    )
    if (goodput := arm.goodput) is not None:
        yield Tile(
            label="requests within the objective",
            value=units.share(goodput.share),
            detail=(
                f"{name}; {objective(goodput.ttft_ms, goodput.tpot_ms)}"
                + _without(control, lambda a: units.share(a.goodput.share if a.goodput else None))
            ),
        )


def _without(control: ArmResult | None, value: Callable[[ArmResult], str]) -> str:
    return f"; {value(control)} without reuse" if control else ""


def _possible(report: Report, arm: ArmResult) -> float:
    ceiling = report.ceiling if _is_judged(report, arm) else None
    return ceiling.rate if ceiling else arm.all.reusable_rate


def _is_judged(report: Report, arm: ArmResult) -> bool:
    """By the load's ceiling, which is of the whole load."""
    return report.ceiling is not None and arm.counts.completed >= MOST * arm.counts.planned


def objective(ttft_ms: float | None, tpot_ms: float | None) -> str:
    """A goodput's objective."""
    parts = [
        f"{name} within {units.duration(value)}"
        for name, value in (("TTFT", ttft_ms), ("TPOT", tpot_ms))
        if value is not None
    ]
    return " and ".join(parts)

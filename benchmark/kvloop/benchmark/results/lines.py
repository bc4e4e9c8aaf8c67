"""What a report says in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from kvloop.benchmark.results.document import ArmResult, Claim, Goodput, Report, Savings

_SHOWN = ("ttft_later_turns", "ttft", "output_rate")
"""The table has the others."""


def result_lines(report: Report) -> Iterator[str]:
    """Rates, claims, ceiling, goodput, savings, answers, and the driver's own cost."""
    for arm in report.arms:
        yield _rate_line(arm)
    for claim in report.claims:
        if claim.name in _SHOWN and claim.name != _hidden(report) and not _is_vague(claim):
            yield f"{claim.words[0].upper()}{claim.words[1:]}."
    yield from _ceiling_lines(report)
    for arm in report.arms:
        if arm.goodput is not None:
            yield _goodput_line(arm, arm.goodput)
    if report.savings is not None:
        yield _savings_line(report.savings)
    for arm in report.arms:
        queued = arm.all.queued_ms
        if queued is not None and queued.p99 >= 1:
            yield (
                f"{arm.arm}: queued behind --max-in-flight, no part of TTFT: p50 {queued.p50:.0f}, "
                f"p99 {queued.p99:.0f} ms"
            )
    if report.answers_compared:
        yield (
            f"answers: {report.answers_different} of {report.answers_compared} were not the same "
            "in every arm (a difference goes on in its conversation's later turns)"
        )
    if report.driver is not None and not report.driver.is_bottleneck:  # else it is a warning
        yield report.driver.words


def error_lines(report: Report) -> Iterator[str]:
    """Failures by kind with an example each, and what was not sent."""
    for arm in report.arms:
        for kind, num in arm.errors.items():
            example = next(f for f in report.failures if f.arm == arm.arm and f.kind == kind)
            yield (
                f"{num} failed in arm {arm.arm}: {kind}; the first: conversation "
                f"{example.conversation}, turn {example.turn}: {example.message}"
            )
        if arm.counts.not_sent:
            yield (
                f"{arm.counts.not_sent} not sent in arm {arm.arm}: an earlier turn of their "
                "conversation failed, or the run ended before"
            )


def _hidden(report: Report) -> str:
    """The first token of all turns is told only where there are no later turns."""
    has_later = any(claim.name == "ttft_later_turns" for claim in report.claims)
    return "ttft" if has_later else ""


def _is_vague(claim: Claim) -> bool:
    return claim.name == "output_rate" and claim.low is None


def _rate_line(arm: ArmResult) -> str:
    counts, rates = arm.counts, arm.rates
    return (
        f"{arm.arm}: {counts.completed} of {counts.planned} requests in {arm.seconds:.1f} s: "
        f"{rates.requests_per_s:.2f} requests/s, {rates.output_tokens_per_s:.1f} output tokens/s, "
        f"{rates.prompt_tokens_per_s:.0f} prompt tokens/s"
    )


def _ceiling_lines(report: Report) -> Iterator[str]:
    if report.ceiling is None:
        return
    hits = ", ".join(
        f"{arm.arm} {arm.all.hit_rate:.1%}" for arm in report.arms if arm.all.hit_rate is not None
    )
    yield (
        f"ceiling: {report.ceiling.rate:.1%} of the prompt tokens can be reused at most "
        f"({report.ceiling.words}); hit: {hits or 'not told'}"
    )


def _goodput_line(arm: ArmResult, goodput: Goodput) -> str:
    wanted = " and ".join(
        f"{name} within {value:g} ms"
        for name, value in (("TTFT", goodput.ttft_ms), ("TPOT", goodput.tpot_ms))
        if value is not None
    )
    return (
        f"{arm.arm}: goodput {goodput.requests_per_s:.2f} requests/s; {goodput.met} of "
        f"{arm.counts.planned} ({goodput.share:.1%}) kept {wanted}"
    )


def _savings_line(savings: Savings) -> str:
    is_loss = savings.gpu_s < 0
    sign = -1 if is_loss else 1
    interval = " (too few for an interval)"
    if savings.low is not None and savings.high is not None:
        low, high = sorted((sign * savings.low, sign * savings.high))
        chance = "; may be no difference" if low <= 0 <= high else ""
        interval = f" (95 %: {low:.1f} to {high:.1f}{chance})"
    price = (
        f", {sign * savings.price_per_1000_requests:.4g} at {savings.price_per_gpu_hour:g} an hour"
        if savings.price_per_1000_requests is not None and savings.price_per_gpu_hour is not None
        else ""
    )
    return (
        f"{'lost' if is_loss else 'saved'}: {sign * savings.gpu_s:.1f} GPU seconds against "
        f"{savings.control}{interval}; {sign * savings.per_1000_requests_s:.1f} s a 1,000 "
        f"requests{price}; {savings.how}"
    )

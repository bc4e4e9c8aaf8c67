"""What a reader must know before believing a number. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kvloop.benchmark.page import looks, units
from kvloop.benchmark.results import cautions
from kvloop.benchmark.results.document import ArmResult, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """`bad`: something went wrong; `warning`: the numbers mean less than they seem to."""

    level: Literal["bad", "warning"]
    words: str


def alarms(report: Report) -> list[Alarm]:
    """The worst first."""
    bad = [Alarm(level="bad", words=words) for words in _bad(report)]
    each = [_alarm(words) for words in dict.fromkeys(_warnings(report))]
    return bad + sorted(each, key=lambda alarm: alarm.level == "warning")


def _bad(report: Report) -> Iterator[str]:
    if report.is_cut_short:
        yield (
            "The run was cut short: its numbers are of a part of its load, and its arms may have "
            "held different conversations."
        )
    for arm in report.arms:
        if arm.counts.failed or arm.counts.not_sent:
            yield _failed(arm)
    if report.answers_different:
        yield (
            f"{units.count(report.answers_different)} of {units.count(report.answers_compared)} "
            "answers differ between arms that were asked the same. In 16-bit arithmetic two tokens "
            "of nearly equal weight may change places; in float32 no answer should differ."
        )


def _failed(arm: ArmResult) -> str:
    counts = arm.counts
    kinds = ", ".join(f"{kind} {units.count(num)} x" for kind, num in arm.errors.items())
    parts = []
    if counts.failed:
        parts.append(f"{units.count(counts.failed)} failed{f' ({kinds})' if kinds else ''}")
    if counts.not_sent:
        parts.append(
            f"{units.count(counts.not_sent)} were not sent or not answered, because an earlier "
            "turn failed or the run ended"
        )
    planned = units.count(counts.planned, "request")
    return f"In the arm “{looks.NAMES[arm.arm]}”, of {planned} {' and '.join(parts)}."


def _warnings(report: Report) -> Iterator[str]:
    yield from (words for words in report.warnings if words != cautions.CUT_SHORT)
    driver = report.driver
    if driver is None or not driver.is_bottleneck:
        return
    if not any(driver.words in words for words in report.warnings):
        yield f"The driver itself was the bottleneck: {driver.words}"


def _alarm(words: str) -> Alarm:
    """Warnings that shout are of what went wrong."""
    is_bad = words.split(" ", 1)[0].isupper()
    return Alarm(level="bad" if is_bad else "warning", words=words[:1].upper() + words[1:])

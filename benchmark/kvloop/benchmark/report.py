"""A finished benchmark as data: docs/benchmarks.md describes the JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kvloop.benchmark.sample import Failure, Sample
from kvloop.benchmark.stats import Summary, summarize
from kvloop.benchmark.workload import Workload

SCHEMA = "kvloop.bench.multi-turn/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a benchmark measured."""

    workload: Workload
    url: str
    model: str
    started_at: str
    """UTC, ISO 8601."""
    duration_s: float
    """From the first request's start to the last answer's end."""
    samples: tuple[Sample, ...]
    failures: tuple[Failure, ...]

    @property
    def num_not_sent(self) -> int:
        """Turns whose conversation had failed before."""
        return self.workload.num_requests - len(self.samples) - len(self.failures)

    @property
    def num_short_answers(self) -> int:
        """Answers with fewer tokens than were asked for: their rates compare badly."""
        wanted = self.workload.output_length
        return sum(sample.completion_tokens < wanted for sample in self.samples)

    @property
    def errors(self) -> dict[str, int]:
        """Failures by kind, the commonest first."""
        return dict(Counter(failure.kind for failure in self.failures).most_common())

    def turn(self, number: int) -> Summary:
        """Of turn `number`, from 1."""
        return summarize([s for s in self.samples if s.turn == number])

    @property
    def later_turns(self) -> Summary:
        """Of all turns but the first: those that can reuse KV."""
        return summarize([s for s in self.samples if s.turn > 1])

    def per_second(self, count: float) -> float:
        """A total over the whole run's time."""
        return count / self.duration_s if self.duration_s > 0 else 0.0


def to_json(report: Report) -> dict[str, Any]:
    """The JSON document."""
    everything = summarize(report.samples)
    turns = range(1, report.workload.turns + 1)
    return {
        "schema": SCHEMA,
        "server": {"url": report.url, "model": report.model},
        "workload": asdict(report.workload),
        "started_at": report.started_at,
        "duration_s": report.duration_s,
        "requests": {
            "planned": report.workload.num_requests,
            "completed": len(report.samples),
            "failed": len(report.failures),
            "not_sent": report.num_not_sent,
            "short_answers": report.num_short_answers,
        },
        "errors": report.errors,
        "failures": [asdict(failure) for failure in report.failures],
        "rates": {
            "requests_per_s": report.per_second(len(report.samples)),
            "output_tokens_per_s": report.per_second(everything.completion_tokens),
            "prompt_tokens_per_s": report.per_second(everything.prompt_tokens),
        },
        "fallbacks": _fallbacks(report.samples),
        "turns": [{"turn": number, **asdict(report.turn(number))} for number in turns],
        "later_turns": asdict(report.later_turns),
        "all": asdict(everything),
        "samples": [asdict(sample) for sample in report.samples],
    }


def _fallbacks(samples: Sequence[Sample]) -> dict[str, int]:
    return dict(Counter(s.fallback for s in samples if s.fallback is not None))

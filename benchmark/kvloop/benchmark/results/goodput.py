"""How many requests were served as well as was promised. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvloop.benchmark.results.document import Goodput
from kvloop.benchmark.sample import Sample
from kvloop.shared_cache.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """What a request must keep to count; None: anything will do."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    """Mean time of each token after the first; an answer of one token keeps it."""

    def __post_init__(self) -> None:
        for flag, value in (("ttft", self.ttft_ms), ("tpot", self.tpot_ms)):
            if value is not None and value <= 0:
                raise ConfigError(f"--slo-{flag}-ms: want milliseconds above 0; got {value}")

    @property
    def is_given(self) -> bool:
        return self.ttft_ms is not None or self.tpot_ms is not None

    def are_met(self, sample: Sample) -> bool:
        """By this answered request."""
        ttft, tpot = 1000 * sample.ttft_s, 1000 * (sample.tpot_s or 0.0)
        return (self.ttft_ms is None or ttft <= self.ttft_ms) and (
            self.tpot_ms is None or tpot <= self.tpot_ms
        )


def goodput(
    samples: Sequence[Sample], planned: int, seconds: float, objectives: Objectives
) -> Goodput | None:
    """None without objectives; failed and unsent requests are of `planned`, and missed."""
    if not objectives.is_given:
        return None
    met = sum(objectives.are_met(sample) for sample in samples)
    return Goodput(
        ttft_ms=objectives.ttft_ms,
        tpot_ms=objectives.tpot_ms,
        met=met,
        share=met / planned if planned else 0.0,
        requests_per_s=met / seconds if seconds > 0 else 0.0,
    )

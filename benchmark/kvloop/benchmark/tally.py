"""What a run has shown so far: counts, running medians, rates. Pure but for its clock."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from kvloop.benchmark.arms import Arm, Segment
from kvloop.benchmark.results.document import SegmentResult
from kvloop.benchmark.sample import Failure, Sample
from kvloop.benchmark.workloads.plan import Workload

LATEST = 1000
"""TTFTs of an arm that its running median is of."""


@dataclass(slots=True)
class ArmTally:
    """Of one arm."""

    answered: int = 0
    failed: int = 0
    ttft_s: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    """None until the server reports any."""
    output_tokens: int = 0
    seconds: float = 0.0
    """Of its segments that are over."""

    @property
    def ttft_median_s(self) -> float | None:
        """Of the latest; None of nothing."""
        return median(self.ttft_s) if self.ttft_s else None

    @property
    def hit_rate(self) -> float | None:
        if self.cached_tokens is None or not self.prompt_tokens:
            return None
        return self.cached_tokens / self.prompt_tokens

    def add(self, outcome: Sample | Failure) -> None:
        if isinstance(outcome, Failure):
            self.failed += 1
            return
        self.answered += 1
        self.ttft_s.append(outcome.ttft_s)
        self.output_tokens += outcome.completion_tokens
        self.prompt_tokens += outcome.prompt_tokens
        if outcome.cached_tokens is not None:
            self.cached_tokens = (self.cached_tokens or 0) + outcome.cached_tokens


class Tally:
    """Implements the driver's Listener; its memory does not grow with the run."""

    def __init__(
        self, workload: Workload, segments: Sequence[Segment], clock: Callable[[], float]
    ) -> None:
        turns = [len(conversation.turns) for conversation in workload.conversations]
        self._planned_of = {
            _place(s): sum(turns[number] for number in s.conversations) for s in segments
        }
        self._clock = clock
        self._began_at: float | None = None
        """Of the first segment: the warm-up is no part of the pace."""
        self._segment_began_at = 0.0
        self._outcomes_here, self._over = 0, 0
        self.planned = sum(self._planned_of.values())
        self.num_rounds = len({s.round for s in segments})
        self.num_steps = len({s.step for s in segments})
        self.segment: Segment | None = None
        self.in_flight = 0
        self.is_over = False
        self.arms: defaultdict[Arm, ArmTally] = defaultdict(ArmTally)
        self.errors: Counter[str] = Counter()

    def began(self, segment: Segment) -> None:
        self.segment, self._segment_began_at = segment, self._clock()
        if self._began_at is None:
            self._began_at = self._segment_began_at
        self._outcomes_here, self.in_flight = 0, 0

    def sent(self) -> None:
        self.in_flight += 1

    def outcome(self, outcome: Sample | Failure) -> None:
        self.in_flight = max(0, self.in_flight - 1)
        self._outcomes_here += 1
        self.arms[outcome.arm].add(outcome)
        if isinstance(outcome, Failure):
            self.errors[outcome.kind] += 1

    def ended(self, result: SegmentResult) -> None:
        self.arms[result.arm].seconds += result.ended_at - result.began_at
        # Turns that were not sent are over, too.
        self._over += self._planned_of.get(_place(result), 0)
        self._outcomes_here, self.in_flight, self.segment = 0, 0, None

    def end(self) -> None:
        """Nothing comes any more, whether or not all of it came."""
        self.is_over, self.segment = True, None

    @property
    def over(self) -> int:
        """Requests that nobody waits for any more: answered, failed, or never to be sent."""
        return min(self.planned, self._over + self._outcomes_here)

    @property
    def answered(self) -> int:
        return sum(arm.answered for arm in self.arms.values())

    @property
    def failed(self) -> int:
        return sum(arm.failed for arm in self.arms.values())

    @property
    def elapsed_s(self) -> float:
        return 0.0 if self._began_at is None else self._clock() - self._began_at

    @property
    def remaining_s(self) -> float | None:
        """At the pace so far; None where nothing is over yet."""
        over = self.over
        return self.elapsed_s * (self.planned - over) / over if over else None

    def output_rate(self, arm: Arm) -> float | None:
        """Output tokens a second, over the arm's own segments."""
        seconds = self.arms[arm].seconds
        if self.segment is not None and self.segment.arm == arm:
            seconds += self._clock() - self._segment_began_at
        return self.arms[arm].output_tokens / seconds if seconds > 0 else None


def _place(item: Segment | SegmentResult) -> tuple[Arm, int, int]:
    return item.arm, item.step, item.round

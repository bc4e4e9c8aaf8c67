"""Drives a workload, segment by segment, and says what that showed and cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.core_wait import core_wait_s, wait_share
from kvloop.benchmark.driver.cost import judge_cost
from kvloop.benchmark.driver.driven import Driven
from kvloop.benchmark.driver.garbage import old_objects_frozen
from kvloop.benchmark.driver.gate import Gate
from kvloop.benchmark.driver.heads import new_heads
from kvloop.benchmark.driver.holder import Course, Holder
from kvloop.benchmark.driver.lag import LagMonitor
from kvloop.benchmark.driver.listener import Listener, Silence
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.signals import first_signal
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.driver.warm_up import warm_up
from kvloop.benchmark.driver.watch import ServerWatch
from kvloop.benchmark.results.document import SegmentResult
from kvloop.benchmark.sample import Failure, Sample
from kvloop.benchmark.workloads.plan import Workload


async def drive(
    http: aiohttp.ClientSession,
    target: Target,
    workload: Workload,
    segments: Sequence[Segment],
    options: DriveOptions,
    listener: Listener | None = None,
) -> Driven:
    """Warm up, then hold each segment's conversations, one segment after the other.

    The first SIGINT or SIGTERM, or a server that is gone, ends it early: what was measured comes
    back all the same. Raises BadAnswer if the warm-up fails, ConfigError if the server cannot do
    one of the arms.
    """
    with old_objects_frozen():
        return await _drive(http, target, workload, segments, options, listener or Silence())


async def _drive(
    http: aiohttp.ClientSession,
    target: Target,
    workload: Workload,
    segments: Sequence[Segment],
    options: DriveOptions,
    listener: Listener,
) -> Driven:
    heads = new_heads(workload.say(-1, 1).ids)
    name = await warm_up(http, target, workload, segments, options, heads)
    lag = LagMonitor(lambda: gate.streams > 0)
    run = _Run(listener=listener, lag=lag)
    watch = ServerWatch(http, target.url, options, run.cut_short)
    gate = Gate(http, target, options, run.listener, watch)
    course = Course(
        target=target,
        workload=workload,
        conversations=tuple(workload.conversations),
        options=options,
        heads=heads,
        gate=gate,
        on_outcome=run.take,
        start=run.start,
    )
    cpu_s, waited_s = time.process_time(), core_wait_s()

    def interrupt(signal: str) -> None:
        run.cut_short(f"{signal} ended the run early")

    try:
        with lag, first_signal(interrupt):
            await run.hold(course, segments)
    finally:
        await watch.close()
    duration_s = time.monotonic() - run.start
    cpu_share = (time.process_time() - cpu_s) / duration_s
    waited = wait_share(waited_s, core_wait_s(), duration_s)
    return Driven(
        started_at=run.started_at.isoformat(timespec="seconds"),
        duration_s=duration_s,
        server_name=name or _name_of(run.samples),
        samples=tuple(run.samples),
        failures=tuple(run.failures),
        segments=tuple(run.segments),
        cost=judge_cost(run.samples, lag.lags.spread(), cpu_share, gate.most_streams, waited),
        is_cut_short=run.why_cut is not None,
        warnings=_warnings(run, gate),
    )


@dataclass(slots=True, kw_only=True)
class _Run:
    """What has been measured so far."""

    listener: Listener
    lag: LagMonitor
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    start: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    segments: list[SegmentResult] = field(default_factory=list)
    why_cut: str | None = None
    _task: asyncio.Task[None] | None = None

    def take(self, outcome: Sample | Failure) -> None:
        """Keep it, and pass it on."""
        if isinstance(outcome, Sample):
            self.samples.append(outcome)
        else:
            self.failures.append(outcome)
        self.listener.outcome(outcome)

    def cut_short(self, why: str) -> None:
        """End the run now."""
        if self.why_cut is None and self._task is not None:
            self.why_cut = why
            self._task.cancel()

    async def hold(self, course: Course, segments: Sequence[Segment]) -> None:
        """All segments, or as many as there is time for."""
        self._task = asyncio.create_task(self._hold_all(course, segments))
        try:
            await self._task
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.why_cut is None or (task is not None and task.cancelling()):
                raise  # from outside: a second signal, too

    async def _hold_all(self, course: Course, segments: Sequence[Segment]) -> None:
        for number, segment in enumerate(segments):
            if number:
                await asyncio.sleep(course.options.pause_s)
            await self._hold_one(course, segment)

    async def _hold_one(self, course: Course, segment: Segment) -> None:
        with self.lag.paused():
            self.listener.began(segment)
        began_at = time.monotonic() - self.start
        try:
            await Holder(course, segment).hold()
        finally:
            result = SegmentResult(
                arm=segment.arm,
                step=segment.step,
                round=segment.round,
                rate=segment.rate,
                began_at=began_at,
                ended_at=time.monotonic() - self.start,
            )
            self.segments.append(result)
            with self.lag.paused():
                self.listener.ended(result)


def _name_of(samples: Sequence[Sample]) -> str:
    return "kvloop" if any(sample.sources is not None for sample in samples) else "other"


def _warnings(run: _Run, gate: Gate) -> tuple[str, ...]:
    """What a reader must know; the cost has words of its own."""
    warnings = [run.why_cut] if run.why_cut is not None else []
    if gate.streams_broken_off:
        warnings.append(
            f"{gate.streams_broken_off} requests were under way when the run ended; they count as "
            "not sent"
        )
    if gate.num_retries:
        warnings.append(
            f"{gate.num_retries} times the server answered 429 and was asked again; the wait is "
            "part of the queueing, not of the time to the first token"
        )
    return tuple(warnings)

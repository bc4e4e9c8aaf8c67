"""Runs canaries, one at a time: on demand and by schedule; keeps what the last one found."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Literal

from prometheus_client import CollectorRegistry

from kvloop.router.canary.chat import PairCanary
from kvloop.router.canary.metrics import CanaryMetrics
from kvloop.router.canary.plan import Plan, plan_pairs
from kvloop.router.canary.probe import Probe
from kvloop.router.canary.report import (
    PairReport,
    Report,
    StageReport,
    broken_stage,
    merge,
    result_of,
    same,
)
from kvloop.router.config import RouterConfig
from kvloop.router.model import ServedModel
from kvloop.router.nodes import NodeRegistry
from kvloop.shared_cache.wire import NodeRecord, Role

log = logging.getLogger("kvloop.router.canary")

_PAIRS_AT_ONCE = 4
_LATEST_START = 0.75
"""Of a canary's time: what a pair does not show in the rest says nothing of it."""
_LOOK_FOR_NODES_S = 0.5

_NO_TIME = "no time was left for this pair of nodes (--canary-timeout-s)"

Trigger = Literal["demand", "schedule"]


class Canary:
    """Belongs to one event loop. `connect` it before anything is run."""

    def __init__(
        self,
        config: RouterConfig,
        registry: NodeRegistry,
        model: ServedModel,
        metrics: CollectorRegistry,
    ) -> None:
        self._config, self._registry, self._model = config, registry, model
        self._metrics = CanaryMetrics(metrics)
        self._probe: Probe | None = None
        self._running: asyncio.Task[Report] | None = None
        self._num_runs = 0
        self.last: Report | None = None
        """What the last one found; None before the first has ended."""

    @property
    def is_running(self) -> bool:
        """Whether one is under way."""
        return self._running is not None

    def connect(self, probe: Probe) -> None:
        """Give it its way to the nodes."""
        self._probe = probe

    async def run(self, trigger: Trigger) -> Report:
        """Run a canary, or wait for the one that is under way and return what that one finds."""
        if self._running is None:
            self._running = asyncio.create_task(self._run(trigger))
            self._running.add_done_callback(self._ended)
        # whoever waits may go away: the canary goes on
        return await asyncio.shield(self._running)

    async def schedule(self) -> None:
        """Run one every interval, for ever, the first as soon as both roles are there."""
        interval_s = self._config.canary_interval_s
        if interval_s <= 0:
            return
        await self._wait_for_nodes(interval_s)
        while True:
            try:
                await self.run("schedule")
            except Exception:  # the schedule outlives whatever a canary meets
                log.exception("a canary could not be run")
            await asyncio.sleep(interval_s)

    async def close(self) -> None:
        """End the one that is under way."""
        task = self._running
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _ended(self, _task: asyncio.Task[Report]) -> None:
        self._running = None

    async def _wait_for_nodes(self, longest_s: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + longest_s
        while loop.time() < until:
            is_loaded = self._model.problem is None
            if is_loaded and self._registry.ready("decode") and self._registry.ready("prefill"):
                return
            await asyncio.sleep(_LOOK_FOR_NODES_S)

    async def _run(self, trigger: Trigger) -> Report:
        started_at, began = time.time(), time.monotonic()
        turn, self._num_runs = self._num_runs, self._num_runs + 1
        plan = plan_pairs(self._serving("prefill"), self._serving("decode"), turn)
        pairs, stages = await self._judge(plan)
        report = Report(
            result=result_of(stages),
            broken_stage=broken_stage(stages),
            stages=stages,
            pairs=pairs,
            notes=plan.notes,
            trigger=trigger,
            started_at=started_at,
            seconds=round(time.monotonic() - began, 3),
        )
        self.last = report
        self._metrics.take(report)
        _tell(report)
        return report

    async def _judge(self, plan: Plan) -> tuple[tuple[PairReport, ...], tuple[StageReport, ...]]:
        if not self._serving("decode"):
            return (), _no_transfer(self._none_ready("decode"))
        if not plan.pairs and not self._serving("prefill"):
            return (), _no_transfer(self._none_ready("prefill"))
        if self._model.problem is not None:
            return (), same("unknown", self._model.problem)
        pairs = tuple(await self._run_pairs(plan))
        columns = [pair.stages for pair in pairs]
        columns += [_no_transfer(problem) for problem in plan.problems]
        return pairs, merge(columns)

    async def _run_pairs(self, plan: Plan) -> Sequence[PairReport]:
        assert self._probe is not None, "the canary is not connected"
        probe, vocab_size = self._probe, self._model.tokenizer.vocab_size
        now, timeout_s = asyncio.get_running_loop().time, self._config.canary_timeout_s
        began = now()
        places = asyncio.Semaphore(_PAIRS_AT_ONCE)

        async def one(index: int) -> PairReport:
            async with places:
                pair = PairCanary(probe, plan.pairs[index], vocab_size, began + timeout_s)
                is_late = now() - began > _LATEST_START * timeout_s
                return pair.not_begun(_NO_TIME) if is_late else await pair.run()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(i)) for i in range(len(plan.pairs))]
        return [task.result() for task in tasks]

    def _serving(self, role: Role) -> list[NodeRecord]:
        model = self._model.node_model
        return [n for n in self._registry.ready(role) if model is None or n.model == model]

    def _none_ready(self, role: Role) -> str:
        seen = [f"{r.url} is {s}" for r, s in self._registry.states() if r.role == role]
        seen += [f"{url} {problem}" for url, problem in self._registry.problems.items()]
        return "; ".join([f"no {role} node is ready", *seen])


def _no_transfer(reason: str) -> tuple[StageReport, ...]:
    failed = StageReport(stage="transfer", state="failed", reason=reason)
    return failed, *same("skipped", "there is no pair of nodes", ("write_back", "reuse"))


def _tell(report: Report) -> None:
    level = logging.INFO if report.result == "whole" else logging.WARNING
    reasons = [f"{one.stage} {one.state}: {one.reason}" for one in report.stages if one.reason]
    words = "; ".join(reasons) or "every stage is ok"
    log.log(level, "canary: the loop is %s in %.1f s: %s", report.result, report.seconds, words)

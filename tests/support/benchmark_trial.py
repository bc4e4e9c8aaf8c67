"""A MultiTurnBenchmark under its controller, on an API in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bench_reports import make_report
from benchmark_resources import SETTINGS, manifest, over, pod_of, terminated
from memory_api import MemoryApi

from kvloop.benchmark.outlets.termination import Ending, summarize
from kvloop.operator.controllers.base import Result
from kvloop.operator.controllers.benchmark import BenchmarkController
from kvloop.operator.types.benchmark import MultiTurnBenchmarkStatus

SUMMARY = summarize(
    make_report(1, arms=("on", "bypassed")),
    Ending(phase="Succeeded", reason="Completed", message="2 x sooner"),
).decode()


class Bench:
    """A resource under its controller."""

    def __init__(self, **spec: Any) -> None:
        self.api = MemoryApi()
        self.clock = datetime(2026, 1, 1, tzinfo=UTC)
        self.resource = self.api.add(manifest(**spec))
        self.told: list[tuple[str, str]] = []

    async def look(self, times: int = 1) -> Result:
        """A new controller each time: nothing is remembered but what can be seen."""
        for _ in range(times):
            controller = BenchmarkController(SETTINGS, now=lambda: self.clock)
            result = await controller.reconcile(self.resource, self.api)
            MultiTurnBenchmarkStatus.model_validate(result.status)
            self.told += [(event.type, event.reason) for event in result.events]
            self.resource["status"] = dict(result.status)
        return result

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.resource["status"]
        return found

    @property
    def state(self) -> tuple[str, str]:
        return self.status["phase"], self.status["reason"]

    def change(self, **spec: Any) -> None:
        self.resource["spec"] |= spec
        self.resource["metadata"]["generation"] += 1

    @property
    def job(self) -> dict[str, Any]:
        (found,) = self.api.of_kind("Job")
        return found

    @property
    def report(self) -> dict[str, Any]:
        (found,) = self.api.of_kind("ConfigMap")
        return found

    def write_report(self) -> None:
        self.report["data"] = {"summary.json": SUMMARY, "report.html": "<p>"}

    def finish(self, message: str = SUMMARY, code: int = 0) -> None:
        job = over(self.job, kind="Failed" if code else "Complete", reason="BackoffLimitExceeded")
        self.api.add(job)
        phase = "Failed" if code else "Succeeded"
        self.api.add(pod_of(job, state=terminated(message, code=code), phase=phase))

    def remove(self, *kinds: str) -> None:
        self.api.objects = {
            what: one for what, one in self.api.objects.items() if what.kind not in kinds
        }

    def num(self, verb: str, kind: str) -> int:
        return sum(call[:2] == (verb, kind) for call in self.api.calls)


async def finished(**spec: Any) -> Bench:
    """A run that went well."""
    bench = Bench(**spec)
    await bench.look()
    bench.write_report()
    bench.finish()
    await bench.look()
    assert bench.state == ("Succeeded", "Completed")
    return bench

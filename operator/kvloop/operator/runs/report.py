"""The ConfigMap that a run's report goes to."""

from __future__ import annotations

from dataclasses import dataclass

from kvloop.operator.build import benchmark as build
from kvloop.operator.controllers.base import Api, Manifest, ObjectId
from kvloop.operator.runs.outcome import Outcome
from kvloop.operator.runs.summary import Summary, read_summary
from kvloop.operator.types.benchmark import MultiTurnBenchmark


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """As it lies in the cluster, if it does."""

    api: Api
    benchmark: MultiTurnBenchmark
    found_one: Manifest | None

    @classmethod
    async def found(cls, api: Api, benchmark: MultiTurnBenchmark) -> Report:
        """Look for it. Raises ApiError."""
        return cls(api=api, benchmark=benchmark, found_one=await api.get(_id(benchmark)))

    @property
    def name(self) -> str:
        """Of the ConfigMap."""
        return build.report_name(self.benchmark)

    @property
    def is_filled(self) -> bool:
        """The run has written it."""
        return self._is_of_this_run and bool((self.found_one or {}).get("data"))

    @property
    def summary(self) -> Summary | None:
        """That of this run: also where its pod is gone."""
        if not self._is_of_this_run or self.found_one is None:
            return None
        return read_summary((self.found_one.get("data") or {}).get("summary.json", ""))

    async def prepare(self) -> Outcome | None:
        """An empty one of this run; what it waits for, if it has to."""
        if self.found_one is None:
            await self.api.create(build.build_report(self.benchmark))
            return None
        if not self._is_ours:
            words = f"ConfigMap {self.name} is there and belongs to something else: delete it"
            return Outcome(phase="Pending", reason="InvalidConfig", message=words)
        if self._is_of_this_run:
            return None
        await self.api.delete(_id(self.benchmark), uid=self.found_one["metadata"]["uid"])
        words = "the report of the run before is being removed"
        return Outcome(phase="Pending", reason="StoppingOldRun", message=words)

    @property
    def _is_ours(self) -> bool:
        owners = (self.found_one or {"metadata": {}})["metadata"].get("ownerReferences") or ()
        return any(owner.get("uid") == self.benchmark.metadata.uid for owner in owners)

    @property
    def _is_of_this_run(self) -> bool:
        metadata = (self.found_one or {"metadata": {}})["metadata"]
        run = (metadata.get("annotations") or {}).get(build.RUN)
        return self._is_ours and run == build.digest(self.benchmark)


def _id(benchmark: MultiTurnBenchmark) -> ObjectId:
    return ObjectId(
        api_version="v1",
        kind="ConfigMap",
        namespace=benchmark.metadata.namespace,
        name=build.report_name(benchmark),
    )

"""MultiTurnBenchmark: waits for its target, runs one Job a spec, and tells what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kvloop.operator.build import benchmark as build
from kvloop.operator.controllers.base import Api, Manifest, ObjectId, Result
from kvloop.operator.errors import ApiError
from kvloop.operator.parse import InvalidResource, parse_benchmark
from kvloop.operator.runs import outcome as outcomes
from kvloop.operator.runs.outcome import Outcome
from kvloop.operator.runs.pod_state import is_at_work
from kvloop.operator.runs.report import Report
from kvloop.operator.runs.status import (
    WRONG_SPEC,
    build_status,
    events,
    is_done,
    seconds_since,
)
from kvloop.operator.runs.target import find_target, missing_input
from kvloop.operator.settings import Settings
from kvloop.operator.types.base import API_VERSION
from kvloop.operator.types.benchmark import MultiTurnBenchmark

SOON_S = 2.0
"""While something is under way that tells nobody when it is done."""
LOOK_AGAIN_S = 600.0
"""At a run that is over."""
_REFUSED = (400, 403, 422)
"""Of an object that the API server takes in no other way however often it is asked."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One look at one resource."""

    benchmark: MultiTurnBenchmark
    before: Mapping[str, Any]
    """Its status."""
    api: Api

    @property
    def job(self) -> str:
        return build.job_name(self.benchmark)

    def id(self, api_version: str, kind: str, name: str) -> ObjectId:
        """Of an object beside it."""
        namespace = self.benchmark.metadata.namespace
        return ObjectId(api_version=api_version, kind=kind, namespace=namespace, name=name)

    async def list(self, api_version: str, kind: str) -> list[Manifest]:
        """Those of all its runs."""
        labels = build.run_labels(self.benchmark)
        del labels[build.RUN]
        return await self.api.list(api_version, kind, self.benchmark.metadata.namespace, labels)


class BenchmarkController:
    """Of MultiTurnBenchmarks. The status names the run that it tells of: one that has ended is
    never begun again, whatever became of its Job."""

    kind = build.KIND

    def __init__(self, settings: Settings, now: Callable[[], datetime] = _now) -> None:
        self._settings = settings
        self._now = now

    async def close(self) -> None:
        """Nothing runs beside its looks."""

    async def reconcile(self, resource: Manifest, api: Api) -> Result:
        """As in `Controller`."""
        before = resource.get("status") or {}
        generation = resource["metadata"].get("generation", 0)
        try:
            benchmark = parse_benchmark(resource)
        except InvalidResource as error:
            wrong = Outcome(phase="Failed", reason=WRONG_SPEC, message=str(error))
            job = before.get("job", "")  # spec mended, its run is known again
            status = build_status(before, wrong, generation=generation, now=self._now(), job=job)
            return Result(status=status, requeue_s=LOOK_AGAIN_S, events=events(before, status))
        look = _Look(benchmark=benchmark, before=before, api=api)
        if benchmark.metadata.deletion_timestamp is not None:
            return Result(status=before, requeue_s=LOOK_AGAIN_S)
        if is_done(before, look.job):
            return await self._after(look)
        return await self._during(look)

    async def _during(self, look: _Look) -> Result:
        jobs = await look.list("batch/v1", "Job")
        pods = await look.list("v1", "Pod")
        job = next((one for one in jobs if one["metadata"]["name"] == look.job), None)
        run = build.digest(look.benchmark)
        mine = [one for one in pods if one["metadata"]["labels"].get(build.RUN) == run]
        if await _stop_others(look, jobs) or len(mine) < len(pods):
            words = "the run of the spec before this one is being stopped"
            return self._told(look, _pending("StoppingOldRun", words), has_job=False)
        if job is not None and outcomes.end_of(job) is None:
            return self._told(look, outcomes.going_on(mine, build.CONTAINER))
        if any(is_at_work(one, build.CONTAINER, self._now()) for one in mine):
            return self._stopping(look, is_known=job is not None)
        if job is None:
            return await self._without_job(look)
        report = await Report.found(look.api, look.benchmark)
        last = look.before.get("message", "") if look.before.get("phase") == "Pending" else ""
        over = outcomes.ended(job, mine, build.CONTAINER, report.summary, before=last)
        return self._told(look, over, report=report)

    async def _without_job(self, look: _Look) -> Result:
        if look.before.get("job") == look.job:
            report = await Report.found(look.api, look.benchmark)
            return self._told(look, outcomes.vanished(look.job, report.summary), report=report)
        target = await find_target(look.api, look.benchmark)
        if isinstance(target, Outcome):
            return self._told(look, target, has_job=False)
        blocked = await missing_input(look.api, look.benchmark)
        if blocked is None:
            blocked = await (await Report.found(look.api, look.benchmark)).prepare()
        if blocked is not None:
            return self._told(look, blocked, has_job=False)
        return await self._begin(look, target)

    def _stopping(self, look: _Look, *, is_known: bool) -> Result:
        """A second pod of this run waits for the first; without its Job that is known by the
        status only."""
        if is_known or look.before.get("job") == look.job:
            return self._told(look, outcomes.stopping())
        words = "a pod that was stopped is still at work"
        return self._told(look, _pending("StoppingOldRun", words), has_job=False)

    async def _begin(self, look: _Look, url: str) -> Result:
        try:
            for manifest in build.build_rights(look.benchmark):
                await look.api.apply(manifest)
            await look.api.create(build.build_job(look.benchmark, url, self._settings))
        except ApiError as error:
            if error.status not in _REFUSED:
                raise
            refused = _pending("InvalidConfig", f"the API server refused: {error}")
            return self._told(look, refused, has_job=False)
        return self._told(look, _pending("Starting", "the Job was made"))

    async def _after(self, look: _Look) -> Result:
        """The Job and the resource go when their time has come; the status stays as it is."""
        spec, metadata = look.benchmark.spec, look.benchmark.metadata
        age_s = seconds_since(look.before["finishedAt"], self._now())
        if spec.delete_after_seconds is not None and age_s >= spec.delete_after_seconds:
            await look.api.delete(look.id(API_VERSION, build.KIND, metadata.name), uid=metadata.uid)
        elif spec.ttl_seconds_after_finished is not None and (
            age_s >= spec.ttl_seconds_after_finished
        ):
            await look.api.delete(look.id("batch/v1", "Job", look.job))
        due = (spec.ttl_seconds_after_finished, spec.delete_after_seconds)
        waits = [at - age_s for at in due if at is not None and at > age_s]
        status = {**look.before, "observedGeneration": metadata.generation}
        return Result(status=status, requeue_s=min([LOOK_AGAIN_S, *waits]) + 1)

    def _told(
        self, look: _Look, outcome: Outcome, *, has_job: bool = True, report: Report | None = None
    ) -> Result:
        status = build_status(
            look.before,
            outcome,
            generation=look.benchmark.metadata.generation,
            now=self._now(),
            job=look.job if has_job else "",
            config_map=report.name if report is not None and report.is_filled else "",
        )
        is_soon = outcome.is_final or outcome.reason in ("Starting", "Stopping", "StoppingOldRun")
        return Result(
            status=status,
            requeue_s=SOON_S if is_soon else self._settings.resync_s,
            events=events(look.before, status),
        )


def _pending(reason: str, message: str) -> Outcome:
    return Outcome(phase="Pending", reason=reason, message=message)


async def _stop_others(look: _Look, jobs: list[Manifest]) -> bool:
    """Delete Jobs of other specs; whether there were any."""
    others = [one["metadata"] for one in jobs if one["metadata"]["name"] != look.job]
    for metadata in others:
        if "deletionTimestamp" not in metadata:
            await look.api.delete(look.id("batch/v1", "Job", metadata["name"]), uid=metadata["uid"])
    return bool(others)

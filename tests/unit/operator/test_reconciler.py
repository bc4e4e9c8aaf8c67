"""One look, and what is told of one that fails."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import pytest

from kvloop.operator.api import KubernetesApi
from kvloop.operator.controllers.base import Api, Controller, ObjectId, Result
from kvloop.operator.errors import ApiError
from kvloop.operator.runtime.events import EventWriter
from kvloop.operator.runtime.mapping import References
from kvloop.operator.runtime.metrics import Metrics
from kvloop.operator.runtime.queue import Key
from kvloop.operator.runtime.reconciler import TOLD_AFTER, Reconciler

KEY = Key("SharedCache", "apps", "cache")
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Ready",
    "message": "",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


class OneResource:
    """An API server that has one SharedCache, and may be away."""

    def __init__(self) -> None:
        self.is_away = False
        self.events: list[str] = []
        self.resource: dict[str, Any] = {
            "apiVersion": "kvloop.dev/v1alpha1",
            "kind": "SharedCache",
            "metadata": {
                "name": "cache",
                "namespace": "apps",
                "uid": "u",
                "generation": 1,
                "resourceVersion": "1",
            },
            "spec": {},
        }

    async def get(self, _: ObjectId) -> dict[str, Any]:
        if self.is_away:
            raise ApiError("no answer")
        return deepcopy(self.resource)

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.events.append(manifest["reason"])
        return manifest

    async def patch(self, _: ObjectId, body: dict[str, Any], **__: str) -> dict[str, Any]:
        self.resource["status"] = self.resource.get("status", {}) | body["status"]
        return self.resource

    @property
    def ready(self) -> tuple[str, str]:
        (one,) = self.resource["status"]["conditions"]
        return one["status"], one["reason"]


class Looking:
    """A controller, well until it is broken."""

    kind = "SharedCache"

    def __init__(self) -> None:
        self.is_broken = False

    async def reconcile(self, resource: dict[str, Any], api: Api) -> Result:
        if self.is_broken:
            raise ApiError("it does not go")
        return Result(status={"conditions": [READY]})


class Trial:
    """The parts together."""

    def __init__(self) -> None:
        self.server, self.controller, self.metrics = OneResource(), Looking(), Metrics()
        api = cast(KubernetesApi, self.server)
        self.reconciler = Reconciler(
            {"SharedCache": cast(Controller, self.controller)},
            api,
            references=References(),
            events=EventWriter(api),
            metrics=self.metrics,
        )

    async def fail(self, times: int) -> None:
        for _ in range(times):
            with pytest.raises(ApiError):
                await self.reconciler.look(KEY)

    def shown(self, status: str) -> float | None:
        labels = dict(zip(("kind", "namespace", "name"), KEY, strict=True))
        labels |= {"type": "Ready", "status": status}
        return self.metrics.registry.get_sample_value("kvloop_resource_condition", labels)


async def test_a_look_that_keeps_failing_is_told_in_the_status_and_in_the_metric() -> None:
    trial = Trial()
    await trial.reconciler.look(KEY)
    assert trial.shown("True") == 1
    trial.controller.is_broken = True
    await trial.fail(TOLD_AFTER - 1)
    assert trial.server.ready == ("True", "Ready")
    await trial.fail(1)
    assert trial.server.ready == ("Unknown", "ReconcileFailed")
    assert trial.server.events == ["ReconcileFailed"]
    assert (trial.shown("True"), trial.shown("Unknown")) == (0, 1)
    trial.controller.is_broken = False
    await trial.reconciler.look(KEY)
    assert trial.server.ready == ("True", "Ready") and trial.shown("True") == 1


async def test_a_failure_that_could_not_be_told_is_told_later() -> None:
    trial = Trial()
    await trial.reconciler.look(KEY)
    trial.controller.is_broken = trial.server.is_away = True
    await trial.fail(TOLD_AFTER)
    trial.server.is_away = False
    await trial.fail(1)
    assert trial.server.ready == ("Unknown", "ReconcileFailed")


async def test_a_resource_that_goes_is_ready_no_more_in_the_metric_too() -> None:
    trial = Trial()
    await trial.reconciler.look(KEY)
    trial.server.resource["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await trial.reconciler.look(KEY)
    assert trial.server.ready == ("False", "Terminating")
    assert (trial.shown("True"), trial.shown("False")) == (0, 1)


async def test_who_leads_no_more_shows_no_conditions() -> None:
    trial = Trial()
    await trial.reconciler.look(KEY)
    trial.metrics.forget_all()
    assert trial.shown("True") is None

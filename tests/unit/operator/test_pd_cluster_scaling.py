"""Autoscaling of a PDCluster: from a load to the Deployments, the status and an event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from memory_api import MemoryApi
from pd_clusters import SETTINGS, cluster_manifest

from kvloop.operator.autoscale.load import Loads, RoleLoad
from kvloop.operator.autoscale.watch import LoadWatch
from kvloop.operator.controllers.base import Manifest, ObjectId, Result
from kvloop.operator.controllers.pd_cluster import PDClusterController
from kvloop.operator.errors import NodeError
from kvloop.operator.names import SCALED

START = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = {
    "autoscaling": {
        "prefill": {"maxReplicas": 4},
        "decode": {"maxReplicas": 2},
        "scaleDownSeconds": 60,
    }
}
BUSY = Loads(roles={"prefill": RoleLoad(ready=1, begun=30, wait_s=5.0, busy_share=0.9)})
IDLE = Loads(roles={"prefill": RoleLoad(ready=2), "decode": RoleLoad(ready=1)})


class Operator:
    """A controller over an API in memory; the load is what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api, self.now = MemoryApi(), START
        self.load: Loads | None = None
        self.spec: dict[str, Any] = SPEC
        self.status: dict[str, Any] = {}
        self.restart()

        async def look(*_: Any) -> Loads:
            if self.load is None:
                raise NodeError("no router answers")
            return self.load

        monkeypatch.setattr(LoadWatch, "look", look)

    def restart(self) -> None:
        self.controller = PDClusterController(SETTINGS, now=lambda: self.now)

    async def look(self, after: float = 10.0) -> Result:
        self.now += timedelta(seconds=after)
        manifest = {**cluster_manifest(**self.spec), "status": self.status}
        result = await self.controller.reconcile(manifest, self.api)
        self.status = dict(result.status)
        return result

    def deployment(self, role: str) -> Manifest:
        what = ObjectId(
            api_version="apps/v1", kind="Deployment", namespace="ns", name=f"demo-{role}"
        )
        return self.api.objects[what]

    def replicas(self, role: str) -> int:
        return int(self.deployment(role)["spec"]["replicas"])


@pytest.fixture
async def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    """All is made, and no load is known."""
    operator = Operator(monkeypatch)
    await operator.look()
    return operator


async def test_a_load_changes_the_replicas_the_status_and_is_an_event(operator: Operator) -> None:
    operator.load = BUSY
    result = await operator.look()
    assert (operator.replicas("prefill"), operator.replicas("decode")) == (2, 1)
    words = "prompts wait 5.00 s of 1 s"
    (event,) = [one for one in result.events if one.reason == "Scaled"]
    assert (event.type, event.message) == ("Normal", f"prefill 1 -> 2: {words}")
    remembered = operator.status["autoscaling"]["prefill"]
    assert (remembered["wanted"], remembered["reason"]) == (2, words)
    notes = operator.deployment("prefill")["metadata"]["annotations"]
    assert notes[SCALED] == f"2 by autoscaling: {words}"


async def test_later_looks_keep_what_autoscaling_chose(operator: Operator) -> None:
    operator.load = BUSY
    await operator.look()
    operator.load = None
    operator.restart()
    result = await operator.look()
    assert operator.replicas("prefill") == 2
    assert not [one for one in result.events if one.reason == "Scaled"]
    assert operator.deployment("prefill")["metadata"]["annotations"][SCALED].startswith("2 by")


async def test_the_quiet_time_goes_on_though_the_operator_is_restarted(operator: Operator) -> None:
    operator.load = BUSY
    await operator.look()
    operator.load = IDLE
    await operator.look()
    operator.restart()
    await operator.look(30.0)
    assert operator.replicas("prefill") == 2
    operator.restart()
    await operator.look(40.0)
    assert operator.replicas("prefill") == 1


async def test_the_bounds_hold_without_any_load(operator: Operator) -> None:
    operator.deployment("decode")["spec"]["replicas"] = 7
    await operator.look()
    assert operator.replicas("decode") == 2


async def test_a_role_without_bounds_is_not_touched(operator: Operator) -> None:
    operator.spec = {"autoscaling": {"decode": {"maxReplicas": 2}}}
    operator.load = BUSY
    await operator.look()
    assert operator.replicas("prefill") == 1


async def test_without_autoscaling_the_status_says_nothing_of_it(operator: Operator) -> None:
    operator.spec = {}
    operator.load = BUSY
    await operator.look()
    assert "autoscaling" not in operator.status and operator.replicas("prefill") == 1


async def test_a_status_of_another_version_is_no_fault(operator: Operator) -> None:
    operator.status["autoscaling"] = {"prefill": {"wanted": "many"}}
    operator.load = BUSY
    await operator.look()
    assert operator.replicas("prefill") == 2

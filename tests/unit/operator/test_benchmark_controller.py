"""The controller of MultiTurnBenchmarks, on an API in memory."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from benchmark_resources import SETTINGS, URL, over, pod_of
from benchmark_trial import Bench, finished
from memory_api import MemoryApi, id_of

from kvloop.operator.controllers.benchmark import BenchmarkController
from kvloop.operator.errors import ApiError


async def test_a_run_gets_its_rights_its_report_and_one_job() -> None:
    bench = Bench()
    await bench.look(3)
    made = {kind for verb, kind, _ in bench.api.calls}
    assert made == {"ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Job"}
    assert len(bench.api.calls) == 5
    assert bench.state == ("Pending", "Starting")
    assert bench.status["job"] == bench.job["metadata"]["name"]
    assert URL in bench.job["spec"]["template"]["spec"]["containers"][0]["command"]


async def test_a_run_is_told_from_its_beginning_to_its_end() -> None:
    bench = Bench()
    await bench.look()
    pod = pod_of(bench.job, state={"running": {"startedAt": "2026-01-01T00:00:10Z"}})
    bench.api.add(pod)
    await bench.look(2)
    assert bench.state == ("Running", "Running")
    assert bench.status["configMap"] == ""  # it is empty yet
    bench.write_report()
    bench.finish()
    await bench.look(2)
    assert bench.state == ("Succeeded", "Completed")
    assert bench.told == [
        ("Normal", "Starting"),
        ("Normal", "Running"),
        ("Normal", "Completed"),
    ]
    status = bench.status
    assert status["configMap"] == "chats-report"
    assert [arm["arm"] for arm in status["arms"]] == ["on", "bypassed"]
    assert status["ttftWithReuse"] and status["ttftWithoutReuse"] and status["speedup"]
    assert status["finishedAt"] == "2026-01-01T00:01:00Z"
    conditions = {one["type"]: one["status"] for one in status["conditions"]}
    assert conditions == {"Complete": "True", "Failed": "False"}


async def test_a_run_that_failed_says_why_in_a_warning() -> None:
    bench = Bench()
    await bench.look()
    bench.finish("kvloop: error: argument --turns\n", code=2)
    await bench.look()
    assert bench.state == ("Failed", "BadInput")
    assert bench.told[-1] == ("Warning", "BadInput")
    assert "--turns" in bench.status["message"]
    conditions = {one["type"]: one["status"] for one in bench.status["conditions"]}
    assert conditions == {"Complete": "False", "Failed": "True"}


@pytest.mark.parametrize("gone", [(), ("Job",), ("Job", "Pod"), ("Job", "Pod", "ConfigMap")])
async def test_a_run_that_is_over_is_never_begun_again(gone: tuple[str, ...]) -> None:
    bench = await finished()
    before = dict(bench.status)
    bench.remove(*gone)
    await bench.look(3)
    assert bench.status == before
    assert bench.num("create", "Job") == 1


async def test_a_job_that_vanished_before_its_end_was_seen_is_not_made_again() -> None:
    bench = Bench()
    await bench.look()
    bench.remove("Job")
    await bench.look(2)
    assert bench.state == ("Failed", "JobDeleted")
    assert bench.num("create", "Job") == 1


async def test_a_job_that_vanished_after_its_report_is_told_by_that() -> None:
    bench = Bench()
    await bench.look()
    bench.write_report()
    bench.remove("Job")
    await bench.look(2)
    assert bench.state == ("Succeeded", "Completed")
    assert bench.status["configMap"] == "chats-report"


async def test_a_kill_between_the_job_and_the_status_makes_no_second_job() -> None:
    bench = Bench()
    await bench.look()
    del bench.resource["status"]
    await bench.look(2)
    assert bench.num("create", "Job") == 1
    assert bench.state == ("Pending", "Starting")


async def test_a_changed_spec_runs_anew_without_the_old_results() -> None:
    bench = await finished()
    first = bench.status["job"]
    bench.change(repeats=2)
    bench.remove("Pod")  # as the Job's deletion does it
    await bench.look()
    assert bench.state == ("Pending", "StoppingOldRun")
    assert bench.status["arms"] == [] and bench.status["ttftWithReuse"] == ""
    assert bench.status["durationSeconds"] is None  # so that a merge removes it
    await bench.look(2)
    assert bench.state == ("Pending", "Starting")
    assert bench.status["job"] not in ("", first)
    assert bench.job["metadata"]["name"] == bench.status["job"]
    assert "data" not in bench.report


async def test_a_new_run_waits_for_the_old_ones_pod_which_still_writes_its_report() -> None:
    bench = Bench()
    await bench.look()
    bench.api.add(pod_of(bench.job, state={"running": {}}))
    bench.change(repeats=2)
    await bench.look(3)
    assert bench.state == ("Pending", "StoppingOldRun")
    assert bench.api.of_kind("Job") == []
    bench.remove("Pod")
    await bench.look(3)
    assert bench.state == ("Pending", "Starting")


async def test_a_spec_that_is_changed_back_in_time_goes_on_where_it_was() -> None:
    bench = await finished()
    bench.change(timeoutSeconds=100, ttlSecondsAfterFinished=9)
    bench.change(timeoutSeconds=3600)
    await bench.look(2)
    assert bench.state == ("Succeeded", "Completed")
    assert bench.status["observedGeneration"] == 3


async def test_the_job_goes_after_its_time_and_the_rest_stays() -> None:
    bench = await finished(ttlSecondsAfterFinished=30)
    bench.clock = datetime(2026, 1, 1, 0, 1, 0, tzinfo=UTC) + timedelta(seconds=29)
    assert (await bench.look()).requeue_s == pytest.approx(2)
    assert bench.num("delete", "Job") == 0
    bench.clock += timedelta(seconds=2)
    await bench.look(2)
    assert bench.num("delete", "Job") == 1
    assert bench.report["data"] and bench.state == ("Succeeded", "Completed")


async def test_without_a_ttl_the_job_stays() -> None:
    bench = await finished(ttlSecondsAfterFinished=None)
    bench.clock += timedelta(days=1000)
    await bench.look()
    assert bench.num("delete", "Job") == 0


async def test_the_resource_itself_goes_when_that_was_asked_for() -> None:
    bench = await finished(deleteAfterSeconds=60)
    await bench.look()
    assert bench.num("delete", "MultiTurnBenchmark") == 0
    bench.clock += timedelta(seconds=121)
    await bench.look()
    assert bench.num("delete", "MultiTurnBenchmark") == 1


def ready(status: str, *, observed: int = 1, **metadata: Any) -> dict[str, Any]:
    condition = {
        "type": "Ready",
        "status": status,
        "reason": "PodsNotReady",
        "message": "1 of 2",
        "observedGeneration": observed,
    }
    return {
        "apiVersion": "kvloop.dev/v1alpha1",
        "kind": "PDCluster",
        "metadata": {"name": "demo", "namespace": "apps", "generation": 1, **metadata},
        "spec": {"router": {"port": 8123}},
        "status": {"conditions": [condition]},
    }


@pytest.mark.parametrize(
    ("cluster", "reason", "words"),
    [
        (None, "ClusterNotFound", "no PDCluster demo"),
        (ready("False"), "ClusterNotReady", "PodsNotReady: 1 of 2"),
        (ready("Unknown"), "ClusterNotReady", "not ready"),
        (ready("True", generation=2), "ClusterNotReady", "was changed"),
        (ready("True") | {"status": {}}, "ClusterNotReady", "not been looked at yet"),
    ],
    ids=["none", "not ready", "unknown", "changed", "new"],
)
async def test_a_run_waits_for_its_cluster(cluster: Any, reason: str, words: str) -> None:
    bench = Bench(target={"clusterRef": {"name": "demo"}})
    if cluster is not None:
        bench.api.add(cluster)
    await bench.look(2)
    assert bench.state == ("Pending", reason)
    assert words in bench.status["message"]
    assert bench.api.calls == []


async def test_a_ready_clusters_router_is_asked() -> None:
    bench = Bench(target={"clusterRef": {"name": "demo"}})
    bench.api.add(ready("True"))
    await bench.look()
    command = bench.job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "http://demo.apps.svc:8123" in command


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"target": {"url": URL, "apiKeySecret": {"name": "keys", "key": "k"}}},
            "Secret keys",
        ),
        (
            {"workload": {"kind": "trace", "file": {"configMap": "in", "path": "k"}}},
            "ConfigMap in",
        ),
    ],
    ids=["secret", "config map"],
)
async def test_what_a_pod_would_wait_for_silently_is_named(
    spec: dict[str, Any], words: str
) -> None:
    bench = Bench(**spec)
    await bench.look()
    assert bench.state == ("Pending", "InputMissing")
    assert f"there is no {words}" in bench.status["message"]
    assert bench.told == [("Warning", "InputMissing")]
    kind, name = words.split()
    found = bench.api.add(
        {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "apps"}}
    )
    await bench.look()
    assert "has no key k" in bench.status["message"]
    found["data"] = {"k": "v"}
    bench.api.objects[id_of(found)] = found
    await bench.look()
    assert bench.state == ("Pending", "Starting")


async def test_a_config_map_of_somebody_else_is_left_alone() -> None:
    bench = Bench()
    theirs = {"name": "chats-report", "namespace": "apps"}
    bench.api.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": theirs, "data": {"a": "b"}})
    await bench.look(2)
    assert bench.state == ("Pending", "InvalidConfig")
    assert "belongs to something else" in bench.status["message"]
    assert bench.report["data"] == {"a": "b"} and bench.api.of_kind("Job") == []


async def test_a_wrong_spec_says_what_is_wrong_and_begins_nothing() -> None:
    bench = Bench(target={})
    await bench.look(2)
    assert bench.state == ("Failed", "InvalidConfig")
    assert "exactly one of clusterRef and url" in bench.status["message"]
    assert bench.told == [("Warning", "InvalidConfig")]
    assert bench.api.calls == []
    bench.change(target={"url": URL})
    await bench.look(1)
    assert bench.state == ("Pending", "Starting")


async def test_a_wrong_spec_settles_so_that_its_own_status_wakes_nobody() -> None:
    bench = Bench(target={})
    first = (await bench.look()).status
    bench.clock += timedelta(seconds=5)
    assert (await bench.look()).status == first


@pytest.mark.parametrize("status", [400, 403, 422])
async def test_a_job_that_the_api_server_refuses_is_told_in_its_words(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(podTemplate={"spec": {"dnsPolicy": "Nowhere"}})

    async def refuse(_: Any, manifest: dict[str, Any]) -> None:
        if manifest["kind"] == "Job":
            raise ApiError("dnsPolicy: Unsupported value", status=status)

    with monkeypatch.context() as patched:
        patched.setattr(MemoryApi, "create", refuse)
        await bench.look()
    assert bench.state == ("Pending", "InvalidConfig")
    assert "dnsPolicy: Unsupported value" in bench.status["message"]
    assert bench.told == [("Warning", "InvalidConfig")]
    await bench.look()
    assert bench.state == ("Pending", "Starting")


def at_work(bench: Bench, **metadata: Any) -> dict[str, Any]:
    pod = pod_of(bench.job, state={"running": {"startedAt": "2026-01-01T00:00:10Z"}})
    pod["metadata"] |= metadata
    return bench.api.add(pod)


async def test_a_run_out_of_time_is_over_once_its_pod_has_written_its_report() -> None:
    bench = Bench()
    await bench.look()
    at_work(bench, deletionTimestamp="2026-01-01T00:01:30Z")
    bench.api.add(over(bench.job, kind="Failed", reason="DeadlineExceeded"))
    await bench.look()
    assert bench.state == ("Running", "Stopping")
    bench.write_report()
    bench.remove("Pod")
    await bench.look()
    assert bench.state == ("Failed", "DeadlineExceeded")
    assert bench.status["configMap"] == "chats-report" and bench.status["arms"]


async def test_a_pod_that_never_goes_is_not_waited_for() -> None:
    bench = Bench()
    await bench.look()
    at_work(bench, deletionTimestamp="2026-01-01T00:01:30Z")
    bench.api.add(over(bench.job, kind="Failed", reason="DeadlineExceeded"))
    bench.clock += timedelta(seconds=90 + 31)
    await bench.look()
    assert bench.state == ("Failed", "DeadlineExceeded")


async def test_a_deleted_jobs_pod_still_writes_what_it_measured() -> None:
    bench = Bench()
    await bench.look()
    at_work(bench)
    bench.remove("Job")
    await bench.look()
    assert bench.state == ("Running", "Stopping")
    bench.write_report()
    bench.remove("Pod")
    await bench.look()
    assert bench.state == ("Succeeded", "Completed")
    assert bench.num("create", "Job") == 1


async def test_no_second_pod_of_a_run_begins_beside_the_first() -> None:
    bench = Bench()
    await bench.look()
    at_work(bench)
    bench.remove("Job")
    bench.resource["status"] = {}  # the spec was another meanwhile
    await bench.look()
    assert bench.state == ("Pending", "StoppingOldRun")
    bench.remove("Pod")
    await bench.look()
    assert bench.state == ("Pending", "Starting")
    assert bench.num("create", "Job") == 2


async def test_a_claim_that_is_not_there_is_named() -> None:
    volume = {"persistentVolumeClaim": "loads"}
    bench = Bench(workload={"kind": "trace", "file": {"volume": volume, "path": "t"}})
    await bench.look()
    assert bench.state == ("Pending", "InputMissing")
    assert "there is no PersistentVolumeClaim loads" in bench.status["message"]


async def test_a_spec_that_was_wrong_for_a_while_does_not_run_again() -> None:
    bench = await finished()
    bench.change(target={})
    await bench.look(2)
    assert bench.state == ("Failed", "InvalidConfig")
    bench.remove("Job", "Pod")
    bench.change(target={"url": URL})
    await bench.look(2)
    assert bench.state == ("Succeeded", "Completed")
    assert bench.num("create", "Job") == 1


async def test_a_resource_that_is_being_deleted_begins_nothing() -> None:
    bench = Bench()
    bench.resource["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    controller = BenchmarkController(SETTINGS, now=lambda: bench.clock)
    await controller.reconcile(bench.resource, bench.api)
    assert bench.api.calls == []


async def test_an_image_that_cannot_be_pulled_is_a_warning_while_it_is_waited_for() -> None:
    bench = Bench()
    await bench.look()
    state = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    bench.api.add(pod_of(bench.job, state=state, phase="Pending"))
    await bench.look(2)
    assert bench.state == ("Pending", "ImagePullFailed")
    assert bench.told[-1] == ("Warning", "ImagePullFailed")
    bench.api.add(over(bench.job, kind="Failed", reason="DeadlineExceeded"))
    bench.remove("Pod")
    await bench.look()
    assert bench.state == ("Failed", "DeadlineExceeded")
    assert "no such image" in bench.status["message"]

"""MultiTurnBenchmarks run for real: the operator, Jobs of `kvloop bench`, a loop that they load."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster.operator_process import OperatorProcess, operating, wait_for
from cluster_namespace import Namespace
from hicache_loop import VOCAB, small_model
from running import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]
CRDS = Path(__file__).parents[2] / "charts" / "kvloop" / "files" / "crds"
CONTROLLERS = "MultiTurnBenchmark=kvloop.operator.controllers.benchmark:BenchmarkController"
IMAGE = "localhost/kvloop-node:test"
RUN_S = 400.0
LOAD = {
    "kind": "multi-turn",
    "flags": {
        "conversations": "6",
        "clients": "3",
        "turns": "3",
        "request-length": "120",
        "output-length": "8",
        "think-s": "0.4:0.5",
        "id-range": f"10:{VOCAB}",
    },
}


@dataclass(slots=True, kw_only=True)
class Place:
    """A namespace with an operator, and a loop that its pods reach."""

    space: Namespace
    operator: OperatorProcess
    url: str
    restart: Callable[[], OperatorProcess]

    def kill_operator(self) -> None:
        """And start another, which knows nothing of it."""
        self.operator.kill()
        self.operator = self.restart()

    def run(self, name: str, **spec: Any) -> None:
        """Apply a benchmark; it asks the loop unless `target` says otherwise."""
        manifest = {
            "apiVersion": "kvloop.dev/v1alpha1",
            "kind": "MultiTurnBenchmark",
            "metadata": {"name": name},
            "spec": {"target": {"url": self.url}, "workload": LOAD} | spec,
        }
        self.space.apply(json.dumps(manifest))

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.space.get("mtb", name).get("status", {})
        return found

    def ended(self, name: str, generation: int = 1) -> dict[str, Any]:
        """Its status in the end."""

        def is_over() -> bool:
            status = self.status(name)
            is_seen = status.get("observedGeneration") == generation
            return is_seen and status.get("phase") in ("Succeeded", "Failed")

        wait_for(is_over, self.operator, within_s=RUN_S)
        return self.status(name)

    def events(self, name: str) -> str:
        """Of a benchmark, in words."""
        wanted = f"involvedObject.name={name},involvedObject.kind=MultiTurnBenchmark"
        return self.space.kubectl("get", "events", "--field-selector", wanted)

    def names(self, kind: str) -> list[str]:
        return self.space.kubectl("get", kind, "-o", "name").split()


@pytest.fixture(scope="module")
def place(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    space = Namespace(name=f"f-{secrets.token_hex(3)}", kubeconfig=kubeconfig)
    space.kubectl("apply", "--validate=false", "-f", str(CRDS))
    space.kubectl("create", "namespace", space.name)
    path = "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}"
    address = space.kubectl("get", "node", "-o", path)
    folder = tmp_path_factory.mktemp("benchmark")
    with ExitStack() as stack:
        stack.callback(space.kubectl, "delete", "namespace", space.name, "--wait=false")

        def operate() -> OperatorProcess:
            flags = ("--namespace", space.name, "--node-image", IMAGE, "--resync", "3")
            name = f"operator-{secrets.token_hex(2)}"
            started = operating(folder, kubeconfig, *flags, name=name, controllers=CONTROLLERS)
            return stack.enter_context(started)

        cluster = stack.enter_context(Cluster(folder, small_model(folder), "--page-size", "16"))
        cluster.file_cache()
        router = cluster.router("--host", "0.0.0.0")
        for running in (cluster.node("prefill"), cluster.node("decode"), router):
            running.wait_ready()
        url = f"http://{address}:{cluster.router_port}"
        yield Place(space=space, operator=operate(), url=url, restart=operate)


def test_a_benchmark_runs_and_its_numbers_are_in_the_status(place: Place) -> None:
    place.run("good", arms=["on", "bypassed"], repeats=2)
    status = place.ended("good")
    assert (status["phase"], status["reason"]) == ("Succeeded", "Completed"), status
    on, bypassed = status["arms"]
    assert (on["arm"], bypassed["arm"]) == ("on", "bypassed")
    assert on["completed"] == bypassed["completed"] == 18
    assert on["hitRate"] > 0.5 and bypassed["hitRate"] == 0
    assert sum(on["hitRateByTier"].values()) > 0
    assert on["ttft"]["meanMs"] > 0 and on["ttft"]["p99Ms"] >= on["ttft"]["meanMs"]
    assert on["requestsPerSecond"] > 0 and on["outputTokensPerSecond"] > 0
    assert status["ttftWithReuse"].endswith(" ms") and status["ttftWithoutReuse"].endswith(" ms")
    report = place.space.get("configmap", status["configMap"])
    assert json.loads(report["data"]["report.json"])["schema"].startswith("kvloop.bench/")
    assert "report.html" in report["data"] or "report.html.gz" in report["binaryData"]
    (owner,) = report["metadata"]["ownerReferences"]
    assert owner["kind"] == "MultiTurnBenchmark"
    columns = place.space.kubectl("get", "mtb", "good")
    assert "Succeeded" in columns and status["hit"] in columns
    assert "report in ConfigMap good-report" in place.events("good")


def test_a_run_is_done_once_and_its_report_outlives_its_job(place: Place) -> None:
    before = place.ended("good")
    place.space.kubectl("delete", f"job/{before['job']}")
    place.kill_operator()
    place.run("later", target={"clusterRef": {"name": "nobody"}})
    wait_for(lambda: "phase" in place.status("later"), place.operator)
    assert (place.status("later")["phase"], place.status("later")["reason"]) == (
        "Pending",
        "ClusterNotFound",
    )
    assert place.status("good") == before
    assert not [job for job in place.names("jobs") if "good" in job]
    assert place.space.get("configmap", "good-report")["data"]


def test_runs_that_fail_say_why(place: Place) -> None:
    place.run("flag", workload={"kind": "multi-turn", "flags": {"turns": "many"}})
    place.run("unknown", extraArgs=["--no-such-flag"])
    place.run("nobody", target={"url": "http://127.0.0.1:9"})
    place.run("memory", resources={"limits": {"memory": "16Mi"}})
    assert place.ended("flag")["reason"] == "BadInput"
    assert "--turns" in place.ended("flag")["message"]
    assert place.ended("unknown")["reason"] == "BadInput"
    assert "--no-such-flag" in place.ended("unknown")["message"]
    assert place.ended("nobody")["phase"] == "Failed"
    assert "127.0.0.1:9" in place.ended("nobody")["message"]
    assert place.ended("memory")["phase"] == "Failed"
    assert place.ended("memory")["reason"] in ("OutOfMemory", "Crashed", "PodFailed")


def test_runs_that_do_not_begin_say_why(place: Place) -> None:
    missing = {"reference": "localhost/none:0", "pullPolicy": "Never"}
    place.run("image", image=missing)
    place.run("capacity", resources={"requests": {"cpu": "500"}}, timeoutSeconds=60)
    place.run("input", workload={"kind": "trace", "file": {"configMap": "none", "path": "t"}})

    def is_missed() -> bool:
        return place.status("image").get("reason") == "ImagePullFailed"

    wait_for(is_missed, place.operator, within_s=RUN_S)  # a busy kubelet takes its time
    assert "ErrImageNeverPull" in place.status("image")["message"]
    assert "ImagePullFailed" in place.events("image")
    assert place.ended("capacity")["reason"] == "DeadlineExceeded"
    assert "Insufficient cpu" in place.ended("capacity")["message"]
    assert "InsufficientCapacity" in place.events("capacity")
    waiting = place.status("input")
    assert (waiting["phase"], waiting["reason"]) == ("Pending", "InputMissing")
    assert "there is no ConfigMap none" in waiting["message"]


def test_a_mended_spec_runs_anew_and_its_job_goes_in_time(place: Place) -> None:
    place.run("flag", arms=["on"], ttlSecondsAfterFinished=1)
    status = place.ended("flag", generation=2)
    assert (status["phase"], status["reason"]) == ("Succeeded", "Completed"), status
    wait_for(lambda: f"job.batch/{status['job']}" not in place.names("jobs"), place.operator)
    assert place.status("flag")["phase"] == "Succeeded"


def test_what_was_made_for_a_benchmark_goes_with_it(place: Place) -> None:
    place.space.kubectl("delete", "mtb", "--all", "--timeout=60s")
    kinds = "jobs,pods,configmaps,roles,rolebindings,serviceaccounts"
    kept = ("kube-root-ca.crt", "/default")

    def is_clean() -> bool:
        return all(name.endswith(kept) for name in place.names(kinds))

    wait_for(is_clean, place.operator, within_s=150)

"""The operator's runtime on an API server of the test's own, which may be killed."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.api_server import ApiServer, api_server
from cluster.operator_process import OperatorProcess, operating, wait_for
from cluster_namespace import Namespace

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
CRDS = Path(__file__).parents[2] / "charts" / "kvloop" / "files" / "crds"
Make = Callable[[str], Namespace]


@pytest.fixture(scope="module")
def bare(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Without our CRDs."""
    with api_server(tmp_path_factory.mktemp("api"), kubeconfig, ["operator"]) as server:
        yield server


@pytest.fixture(scope="module")
def server(bare: ApiServer) -> ApiServer:
    """With them."""
    install_crds(bare)
    return bare


@pytest.fixture
def make(bare: ApiServer) -> Make:
    """A namespace of that server; it goes with the server."""

    def made(name: str) -> Namespace:
        found = Namespace(name=name, kubeconfig=bare.kubeconfig("admin"))
        found.kubectl("create", "namespace", name)
        return found

    return made


def install_crds(server: ApiServer) -> None:
    """And wait until they are served."""
    space = Namespace(name="default", kubeconfig=server.kubeconfig("admin"))
    # Kubernetes before 1.25 knows no CEL rules.
    space.kubectl("apply", "--validate=false", "-f", str(CRDS))
    space.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


def cache(name: str = "c", directory: str = "one") -> str:
    """A SharedCache for the trial controller."""
    return json.dumps(
        {
            "apiVersion": "kvloop.dev/v1alpha1",
            "kind": "SharedCache",
            "metadata": {"name": name},
            "spec": {
                "backend": "file",
                "file": {
                    "volume": {"persistentVolumeClaim": "pages"},
                    "directory": directory,
                },
            },
        }
    )


def is_ready(space: Namespace, name: str = "c", message: str = "one") -> bool:
    """As the trial controller says."""
    conditions = space.get("sharedcache", name).get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["message"] == message for one in conditions)


def reason(space: Namespace) -> str:
    """Of Ready."""
    conditions = space.get("sharedcache", "c").get("status", {}).get("conditions", [])
    return next((str(one["reason"]) for one in conditions if one["type"] == "Ready"), "")


def names(space: Namespace, kinds: str) -> set[str]:
    """Of the objects that are there."""
    return set(space.kubectl("get", kinds, "-o", "name").split())


def lease(space: Namespace) -> dict[str, Any]:
    """The operator's."""
    found: dict[str, Any] = space.get("lease", "kvloop-operator")["spec"]
    return found


def test_an_operator_waits_for_its_crds_and_says_so(
    bare: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("waiting")
    admin = bare.kubeconfig("admin")
    with operating(tmp_path, admin, "--namespace", "waiting") as operator:
        wait_for(lambda: "are not installed" in operator.ask("/readyz")[1], operator)
        assert operator.ask("/readyz")[0] == 503
        assert operator.ask("/healthz")[0] == 200
        install_crds(bare)
        space.apply(cache())
        wait_for(lambda: is_ready(space), operator)
        assert operator.ask("/readyz") == (200, "ok")


def test_a_change_is_seen_by_watching_long_before_the_next_list(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("watching")
    flags = ("--namespace", "watching", "--resync", "3600")
    with operating(tmp_path, server.kubeconfig("admin"), *flags) as operator:
        space.apply(cache())
        wait_for(lambda: is_ready(space), operator)
        lists = operator.metric(
            "kvloop_operator_api_calls_total", verb="list", resource="sharedcaches.kvloop.dev"
        )
        space.apply(cache(directory="two"))
        wait_for(lambda: is_ready(space, message="two"), operator, within_s=20)
        wait_for(lambda: "deployment.apps/c-one" not in names(space, "deployments"), operator)
        space.kubectl("delete", "deployment", "c-two")
        wait_for(lambda: "deployment.apps/c-two" in names(space, "deployments"), operator)
        assert (
            operator.metric(
                "kvloop_operator_api_calls_total", verb="list", resource="sharedcaches.kvloop.dev"
            )
            <= lists + 3
        )


def test_an_unchanged_resource_costs_no_write(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("quiet")
    flags = ("--namespace", "quiet", "--resync", "0.5")
    with operating(tmp_path, server.kubeconfig("admin"), *flags) as operator:
        space.apply(cache())
        wait_for(lambda: is_ready(space), operator)

        def looks() -> float:
            return operator.metric("kvloop_operator_reconcile_total", result="ok")

        first = looks()
        wait_for(lambda: looks() >= first + 3, operator)
        written = operator.metric("kvloop_operator_api_calls_total", verb="patch")
        second = looks()
        wait_for(lambda: looks() >= second + 10, operator)
        assert operator.metric("kvloop_operator_api_calls_total", verb="patch") == written


def test_a_killed_api_server_is_outlived(server: ApiServer, make: Make, tmp_path: Path) -> None:
    space = make("outlived")
    with operating(tmp_path, server.kubeconfig("admin"), "--namespace", "outlived") as operator:
        space.apply(cache())
        wait_for(lambda: is_ready(space), operator)
        server.kill()
        wait_for(lambda: "not renewed" in operator.log, operator)
        server.start()
        space.apply(cache(directory="two"))
        wait_for(lambda: is_ready(space, message="two"), operator)
        assert operator.process.poll() is None
        wait_for(lambda: operator.ask("/readyz") == (200, "ok"), operator)
        wait_for(lambda: operator.metric("kvloop_operator_leader") == 1, operator)


def test_an_operator_starts_while_the_api_server_is_away(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("away")
    space.apply(cache())
    server.kill()
    try:
        with operating(tmp_path, server.kubeconfig("admin"), "--namespace", "away") as operator:
            wait_for(lambda: "waiting for the API server" in operator.log, operator)
            assert operator.ask("/readyz")[0] == 503
            server.start()
            wait_for(lambda: is_ready(space), operator)
    finally:
        server.start_if_down()


def test_crds_that_go_and_come_again_are_served_again(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("again")
    with operating(tmp_path, server.kubeconfig("admin"), "--namespace", "again") as operator:
        space.apply(cache())
        wait_for(lambda: is_ready(space), operator)
        space.kubectl("delete", "-f", str(CRDS))
        wait_for(lambda: "are not installed" in operator.ask("/readyz")[1], operator)
        install_crds(server)
        space.apply(cache("d"))
        wait_for(lambda: is_ready(space, "d"), operator)
        assert operator.process.poll() is None


def test_what_another_writer_changes_is_put_back_and_what_he_adds_stays(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("conflicts")
    with operating(tmp_path, server.kubeconfig("admin"), "--namespace", "conflicts") as operator:
        space.apply(cache())
        wait_for(lambda: is_ready(space), operator)
        before = space.get("deployment", "c-one")
        for path, value in leaves(OURS):
            change = json.dumps([{"op": "replace", "path": path, "value": value}])
            space.kubectl("patch", "deployment", "c-one", "--type=json", "-p", change)
        space.kubectl("label", "deployment", "c-one", "theirs=kept")
        space.kubectl("annotate", "deployment", "c-one", "theirs=kept")

        def is_back() -> bool:
            return bool(essence(space.get("deployment", "c-one")) == essence(before))

        wait_for(is_back, operator)
        there = space.get("deployment", "c-one")["metadata"]
        assert there["labels"]["theirs"] == there["annotations"]["theirs"] == "kept"


OURS: dict[str, Any] = {
    "metadata": {"labels": {"app.kubernetes.io~1component": "stolen"}},
    "spec": {
        "replicas": 7,
        "template": {
            "spec": {
                "containers": {
                    "0": {
                        "image": "localhost/stolen:1",
                        "env": {"0": {"value": "stolen"}},
                        "resources": {"limits": {"cpu": "9", "memory": "9Gi"}},
                    }
                }
            }
        },
    },
}
"""Fields that the operator applied, and what another writes there."""


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """JSON pointers and values."""
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from leaves(inner, f"{path}/{key}")
    else:
        yield path, tree


def essence(deployment: dict[str, Any]) -> Any:
    """Without what others added and what changes with each write."""
    marks = deployment["metadata"]["labels"]
    ours = {key: text for key, text in marks.items() if key != "theirs"}
    return ours, deployment["spec"]


def test_a_condition_of_another_writer_outlives_ours(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("conditions")
    with operating(tmp_path, server.kubeconfig("admin"), "--namespace", "conditions") as operator:
        space.apply(cache())
        wait_for(lambda: is_ready(space), operator)
        theirs = {
            "type": "Audited",
            "status": "True",
            "reason": "Fine",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        change = json.dumps([{"op": "add", "path": "/status/conditions/-", "value": theirs}])
        path = "/apis/kvloop.dev/v1alpha1/namespaces/conditions/sharedcaches/c/status"
        patch_status(server, path, change)
        space.apply(cache(directory="two"))
        wait_for(lambda: is_ready(space, message="two"), operator)
        types = [one["type"] for one in space.get("sharedcache", "c")["status"]["conditions"]]
        assert types == ["Ready", "Audited"]


def patch_status(server: ApiServer, path: str, change: str) -> None:
    """kubectl 1.20 cannot."""
    done = subprocess.run(
        [
            *("curl", "-sS", "--fail", "--cacert", str(server.folder / "ca.crt"), "-X", "PATCH"),
            *("-H", f"Authorization: Bearer {server.tokens['admin']}"),
            *("-H", "Content-Type: application/json-patch+json", "-d", change),
            f"https://127.0.0.1:{server.port}{path}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_an_object_of_the_same_name_that_is_not_ours_is_left_alone(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("foreign")
    space.kubectl("create", "service", "clusterip", "c", "--tcp=9:9")
    with operating(tmp_path, server.kubeconfig("admin"), "--namespace", "foreign") as operator:
        space.apply(cache())
        wait_for(lambda: "there already and not ours" in operator.log, operator)
        wait_for(lambda: reason(space) == "ReconcileFailed", operator)
        events = space.kubectl("get", "events", "-o", "jsonpath={.items[*].message}")
        assert "there already and not ours" in events
        assert space.get("service", "c")["spec"]["ports"][0]["port"] == 9
        space.kubectl("delete", "service", "c")
        wait_for(lambda: is_ready(space), operator)


def test_a_resource_that_is_being_deleted_gets_nothing_back(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("deleted")
    with operating(tmp_path, server.kubeconfig("admin"), "--namespace", "deleted") as operator:
        space.apply(cache())
        wait_for(lambda: is_ready(space), operator)
        space.kubectl("delete", "sharedcache", "c", "--cascade=foreground", "--timeout=60s")
        assert names(space, "deployments,services,secrets") == set()
        assert "sharedcaches.kvloop.dev" not in space.kubectl("get", "sharedcache", "-o", "name")
        wait_for(lambda: 'name="c"' not in operator.ask("/metrics")[1], operator)


def test_an_event_that_happens_again_is_counted_by_a_restarted_operator(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("events")
    space.apply(cache())

    def count() -> int:
        found = json.loads(space.kubectl("get", "events", "-o", "json"))["items"]
        return sum(event["count"] for event in found if event["reason"] == "Applied")

    for time in (1, 2):
        with operating(tmp_path, server.kubeconfig("admin"), "--namespace", "events") as operator:
            wait_for(lambda time=time: count() == time, operator)  # type: ignore[misc]
            assert operator.kill(signal.SIGTERM) == 0
    events = json.loads(space.kubectl("get", "events", "-o", "json"))["items"]
    assert len(events) == 1
    assert events[0]["involvedObject"]["name"] == "c"
    assert events[0]["message"] == "directory one"


def test_a_second_operator_takes_over_when_the_first_is_killed(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("two")
    admin = server.kubeconfig("admin")
    flags = ("--namespace", "two")
    with operating(tmp_path, admin, *flags, name="first") as first:
        space.apply(cache())
        wait_for(lambda: is_ready(space), first)
        with operating(tmp_path, admin, *flags, name="second") as second:
            wait_for(lambda: "standing by" in second.log, second)
            assert second.ask("/readyz")[0] == 200
            assert second.metric("kvloop_operator_leader") == 0
            first.kill()
            space.apply(cache(directory="two"))
            wait_for(lambda: is_ready(space, message="two"), second)
            assert second.metric("kvloop_operator_leader") == 1
            assert lease(space)["leaseTransitions"] == 2
            assert second.kill(signal.SIGTERM) == 0
            assert lease(space)["holderIdentity"] == ""


def test_a_leader_that_slept_past_its_lease_leads_no_more(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("slept")
    admin = server.kubeconfig("admin")
    flags = ("--namespace", "slept")
    with operating(tmp_path, admin, *flags, name="first") as first:
        wait_for(lambda: first.metric("kvloop_operator_leader") == 1, first)
        with operating(tmp_path, admin, *flags, name="second") as second:
            wait_for(lambda: "standing by" in second.log, second)
            first.process.send_signal(signal.SIGSTOP)
            wait_for(lambda: second.metric("kvloop_operator_leader") == 1, second)
            first.process.send_signal(signal.SIGCONT)
            wait_for(lambda: "the leader is" in first.log, first)
            assert first.process.poll() == 1 or first.metric("kvloop_operator_leader") == 0
            space.apply(cache())
            wait_for(lambda: is_ready(space), second)


def test_the_metrics_show_conditions_and_calls(
    server: ApiServer, make: Make, tmp_path: Path
) -> None:
    space = make("metrics")
    with operating(tmp_path, server.kubeconfig("admin"), "--namespace", "metrics") as operator:
        space.apply(cache())
        wait_for(lambda: is_ready(space), operator)
        wait_for(lambda: shown(operator) == (1.0, 0.0), operator)

        def watches() -> float:
            return operator.metric("kvloop_operator_api_calls_total", verb="watch", resource="pods")

        wait_for(lambda: watches() >= 1, operator)
        assert operator.metric("kvloop_operator_reconcile_seconds_count", kind="SharedCache") >= 1


def shown(operator: OperatorProcess) -> tuple[float, float]:
    """Ready is True, Ready is False."""

    def sample(status: str) -> float:
        return operator.metric("kvloop_resource_condition", type="Ready", status=status)

    return sample("True"), sample("False")

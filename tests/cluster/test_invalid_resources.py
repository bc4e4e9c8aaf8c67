"""Ten invalid resources on a real cluster, each with the message that its user sees."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.operator_process import OperatorProcess, operating, wait_for
from cluster_namespace import Namespace
from ten_invalid import TEN, Invalid

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
CRDS = Path(__file__).parents[2] / "charts" / "kvloop" / "files" / "crds"


@pytest.fixture(scope="module")
def space(kubeconfig: Path) -> Iterator[Namespace]:
    """Of its own; it goes with all that is in it."""
    made = Namespace(name=f"b-invalid-{uuid.uuid4().hex[:6]}", kubeconfig=kubeconfig)
    made.kubectl("apply", "--validate=false", "-f", str(CRDS))
    made.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    made.kubectl("create", "namespace", made.name)
    try:
        yield made
    finally:
        made.kubectl("delete", "namespace", made.name, "--wait=false")


@pytest.fixture(scope="module")
def operator(
    space: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    flags = ("--namespace", space.name, "--no-leader-election")
    with operating(folder, space.kubeconfig, *flags, controllers="") as running:
        yield running


def applied(space: Namespace, manifest: str) -> str:
    """What kubectl says where it is refused; empty: it was taken."""
    done = subprocess.run(
        ["kubectl", "--kubeconfig", space.kubeconfig, "-n", space.name, "apply", "-f", "-"],
        input=manifest,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stderr if done.returncode else ""


def test_there_are_ten_of_all_kinds() -> None:
    assert len(TEN) == 10
    assert {one.kind for one in TEN} == {"SharedCache", "PDCluster", "MultiTurnBenchmark"}


@pytest.mark.parametrize(
    "invalid", [one for one in TEN if one.is_refused], ids=lambda one: one.name
)
def test_what_the_schema_refuses_never_gets_in(space: Namespace, invalid: Invalid) -> None:
    assert invalid.said in applied(space, invalid.manifest)


@pytest.mark.parametrize(
    "invalid", [one for one in TEN if not one.is_refused], ids=lambda one: one.name
)
def test_a_broken_rule_is_told_by_the_api_server_or_in_the_status(
    space: Namespace, operator: OperatorProcess, invalid: Invalid
) -> None:
    """CEL refuses it where there is CEL; else it is taken, and nothing is run for it."""
    refusal = applied(space, invalid.manifest)
    if refusal:
        assert not invalid.is_quantity
        assert invalid.said.partition(": ")[2] in refusal
        return
    wait_for(lambda: told(space, invalid)[0] != "", operator)
    assert told(space, invalid) == ("InvalidConfig", invalid.said)
    assert space.kubectl("get", "deployments,statefulsets,jobs", "-o", "name") == ""


def told(space: Namespace, invalid: Invalid) -> tuple[str, str]:
    """Reason and message, where `kubectl get` and `kubectl describe` show them."""
    status = space.get(invalid.kind, invalid.name).get("status", {})
    if invalid.kind == "MultiTurnBenchmark":
        return status.get("reason", ""), status.get("message", "")
    ready = [one for one in status.get("conditions", []) if one["type"] == "Ready"]
    assert all(one["status"] == "False" for one in ready)
    return (ready[0]["reason"], ready[0]["message"]) if ready else ("", "")

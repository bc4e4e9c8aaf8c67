"""The operator's own pods, as `kvloop install` makes them: tested, replaced, upgraded, removed."""

from __future__ import annotations

import json
from collections.abc import Callable

import helm_python
import pytest
from cluster.images import Images
from cluster.waiting import wait_until
from cluster_namespace import Namespace

from kvloop.cli.main import main

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
KINDS = ("deploy", "pods", "svc", "role", "rolebinding", "lease", "pdb", "sa", "cm")
LEFT_BY_KUBERNETES = {"serviceaccount/default", "configmap/kube-root-ca.crt"}
Kvloop = Callable[..., str]


@pytest.fixture
def kvloop(namespace: Namespace, images: Images, capsys: pytest.CaptureFixture[str]) -> Kvloop:
    """A command that succeeds, on a release in the test's namespace; its output."""
    values = [
        *(f"image.operator.repository={images.repository}-operator", "crds.enabled=false"),
        *(f"image.operator.tag={images.tag}", f"image.node.tag={images.tag}"),
        f"operator.namespaces={{{namespace.name}}}",
    ]
    sets = [word for one in values for word in ("--set", one)]

    def run(command: str, *words: str) -> str:
        where = ["--kubeconfig", str(namespace.kubeconfig), "-n", namespace.name]
        more = sets if command == "install" else []
        status = main([command, *where, "--timeout", "5m", *more, *words])
        told = capsys.readouterr()
        assert status == 0, (command, told.out, told.err)
        return told.out

    return run


def names(space: Namespace, *kinds: str) -> set[str]:
    """kind/name without the API's group."""
    found = space.kubectl("get", ",".join(kinds), "-o", "name").split()
    return {name.split("/")[0].split(".")[0] + "/" + name.split("/")[1] for name in found}


def leader(space: Namespace) -> str:
    """The pod that holds the Lease; empty: none."""
    spec = space.get("lease", "kvloop-operator").get("spec", {})
    return str(spec.get("holderIdentity") or "").split("_")[0]


def test_the_operators_pods_pass_helm_test_take_over_and_go(
    kvloop: Kvloop, namespace: Namespace
) -> None:
    kvloop("install", "--wait", "--set", "operator.replicas=2")
    assert "poddisruptionbudget/kvloop-operator" in names(namespace, "pdb")

    with helm_python.Config(
        kubeconfig_path=str(namespace.kubeconfig), namespace=namespace.name
    ) as config:
        tested = config.test("kvloop", logs=True, timeout=240)
    assert f"/namespaces/{namespace.name}/pdclusters: 0" in tested["logs"]

    first = leader(namespace)
    assert f"pod/{first}" in names(namespace, "pods")
    namespace.kubectl("delete", "pod", first, "--wait=false", "--grace-period=0", "--force")
    second = wait_until(
        "another pod leads",
        lambda: leader(namespace),
        lambda seen: seen not in ("", first),
        within_s=120,
    )
    assert second != first

    kvloop("upgrade", "--wait", "--set", "operator.replicas=1")
    status = json.loads(kvloop("status", "--json"))
    assert status["is_ready"] and status["operator"]["replicas"] == 1
    assert status["release"]["revision"] == 2

    kvloop("uninstall", "--wait")
    left = names(namespace, *KINDS) - LEFT_BY_KUBERNETES
    assert left == set()

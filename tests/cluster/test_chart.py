"""The chart on an API server of the test's own: by kvloop, and by helm's binary.

Definitions belong to the whole cluster, so no test of them can share one. No kubelet runs here:
what the operator does in its pod is tests/cluster/test_install.py's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART
from cluster.api_server import ApiServer, api_server
from cluster.operator_process import wait_for
from cluster_namespace import Namespace

from kvloop.cli.main import main

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
NAMESPACE = "kvloop-system"
HELM = os.environ.get("KVLOOP_TEST_HELM") or shutil.which("helm")
CALL_S = 180
KINDS = (
    *("deployment", "service", "serviceaccount", "role", "rolebinding", "lease"),
    *("clusterrole", "clusterrolebinding", "crd", "configmap", "poddisruptionbudget"),
    *("networkpolicy", "priorityclass", "secret"),
)
Kvloop = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """With a garbage collector, without nodes."""
    with api_server(tmp_path_factory.mktemp("api"), kubeconfig, []) as made:
        yield made


@pytest.fixture
def default(server: ApiServer) -> Namespace:
    """Where the resources of a test are."""
    return Namespace(name="default", kubeconfig=server.kubeconfig("admin"))


@pytest.fixture
def kvloop(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> Kvloop:
    """A command: exit status, stdout, stderr."""

    def run(command: str, *words: str) -> tuple[int, str, str]:
        config = str(server.kubeconfig("admin"))
        status = main([command, "--kubeconfig", config, "--timeout", "120s", *words])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def of_release(space: Namespace) -> list[str]:
    """kind/name of all that says to be of the release, and helm's own notes of it."""
    found: list[str] = []
    for kind in KINDS:
        items = json.loads(space.kubectl("get", kind, "-A", "-o", "json"))["items"]
        for one in items:
            labels = one["metadata"].get("labels") or {}
            is_ours = labels.get("helm.sh/chart", "").startswith("kvloop-")
            if is_ours or labels.get("owner") == "helm":
                found.append(f"{kind}/{one['metadata']['name']}")
    return found


def definitions() -> list[str]:
    """As `of_release` writes them."""
    files = (CHART / "files" / "crds").glob("*.yaml")
    names = [yaml.safe_load(path.read_text())["metadata"]["name"] for path in files]
    return sorted(f"crd/{name}" for name in names)


def owned_by(space: Namespace, cluster: str) -> None:
    """What an operator would have made for it."""
    owner = space.get("pdc", cluster)["metadata"]
    reference = {
        "apiVersion": "kvloop.dev/v1alpha1",
        "kind": "PDCluster",
        "name": cluster,
        "uid": owner["uid"],
    }
    space.apply(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "owned", "ownerReferences": [reference]},
            }
        )
    )


def is_gone(space: Namespace, kind: str, name: str) -> bool:
    """Whether it is not there any more."""
    return name not in space.kubectl("get", kind, "-o", "name", "--ignore-not-found")


def established(space: Namespace) -> None:
    """The definitions are served."""
    space.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


def helm(server: ApiServer, *words: str) -> str:
    """The helm binary's output."""
    assert HELM is not None
    done = subprocess.run(
        [HELM, "--kubeconfig", server.kubeconfig("admin"), "-n", NAMESPACE, *words],
        capture_output=True,
        text=True,
        timeout=CALL_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kvloop_installs_and_uninstalls_and_leaves_nothing_behind(
    kvloop: Kvloop, default: Namespace
) -> None:
    status, out, err = kvloop("install", "--create-namespace")
    assert status == 0, err
    assert "kubectl -n default apply -f examples/demo.yaml" in out
    assert {"deployment/kvloop-operator", *definitions()} <= set(of_release(default))
    assert kvloop("install")[0] == 1
    status, out, _ = kvloop("status")
    assert status == 1 and "0 of 1 pods ready" in out and "PDCluster: none" in out
    status, _, err = kvloop("uninstall", "--wait")
    assert status == 0, err
    assert of_release(default) == []
    assert kvloop("status")[0] == 1


def test_every_example_is_taken_by_an_api_server(kvloop: Kvloop, default: Namespace) -> None:
    assert kvloop("install")[0] == 0
    established(default)
    for path in sorted((CHART / "examples").glob("*.yaml")):
        default.kubectl("apply", "-f", str(path))
    _, out, _ = kvloop("status", "--json")
    told = json.loads(out)
    assert {one["name"] for one in told["pdclusters"]} >= {"demo", "qwen", "llama", "sglang"}
    status, _, err = kvloop("uninstall", "--resources", "delete", "--wait")
    assert status == 0, err
    default.kubectl("delete", "pvc", "--all", "--wait=false")
    assert of_release(default) == []


def test_resources_are_kept_or_deleted_as_is_said_and_never_by_silence(
    kvloop: Kvloop, default: Namespace
) -> None:
    assert kvloop("install")[0] == 0
    established(default)
    default.kubectl("apply", "-f", str(CHART / "examples" / "demo.yaml"))
    owned_by(default, "demo")

    status, _, err = kvloop("uninstall")
    assert status == 2 and "1 SharedCache, 1 PDCluster" in err
    status, _, err = kvloop("uninstall", "--resources", "keep")
    assert status == 2 and "kvloop upgrade --set crds.keep=true" in err

    assert kvloop("upgrade", "--set", "crds.keep=true")[0] == 0
    assert kvloop("uninstall", "--resources", "keep", "--wait")[0] == 0
    assert sorted(of_release(default)) == definitions()
    default.get("pdc", "demo")
    default.get("configmap", "owned")

    # The next release takes the definitions over.
    assert kvloop("install", "--set", "crds.keep=true")[0] == 0
    assert kvloop("uninstall", "--resources", "delete", "--wait")[0] == 0
    assert sorted(of_release(default)) == definitions()
    wait_for(lambda: is_gone(default, "configmap", "owned"))

    assert kvloop("install")[0] == 0
    assert kvloop("uninstall", "--wait")[0] == 0
    assert of_release(default) == []


def test_values_stay_over_an_upgrade_until_they_are_reset(
    kvloop: Kvloop, default: Namespace
) -> None:
    def replicas() -> Any:
        found = Namespace(name=NAMESPACE, kubeconfig=default.kubeconfig)
        return found.get("deployment", "kvloop-operator")["spec"]["replicas"]

    assert kvloop("install", "--set", "operator.replicas=2")[0] == 0
    assert kvloop("upgrade", "--set", "operator.logLevel=DEBUG")[0] == 0
    assert replicas() == 2
    assert kvloop("upgrade", "--reset-values")[0] == 0
    assert replicas() == 1
    assert kvloop("uninstall", "--wait")[0] == 0


def test_a_dry_run_changes_nothing(kvloop: Kvloop, default: Namespace) -> None:
    status, out, err = kvloop("install", "--dry-run")
    assert status == 0, err
    assert "kind: CustomResourceDefinition" in out
    assert of_release(default) == []


@pytest.mark.skipif(HELM is None, reason="no helm: name one by KVLOOP_TEST_HELM, or put it on PATH")
def test_helms_binary_installs_upgrades_and_uninstalls_the_chart(
    server: ApiServer, kvloop: Kvloop, default: Namespace
) -> None:
    out = helm(server, "install", "kvloop", str(CHART), "--create-namespace")
    assert "STATUS: deployed" in out
    assert kvloop("status")[1].startswith("release kvloop in namespace kvloop-system: deployed")
    helm(server, "upgrade", "kvloop", str(CHART), "--set", "crds.keep=true")
    out = helm(server, "uninstall", "kvloop")
    assert "[CustomResourceDefinition] pdclusters.kvloop.dev" in out
    assert sorted(of_release(default)) == definitions()
    default.kubectl("delete", "crd", "--all")
    helm(server, "install", "kvloop", str(CHART))
    helm(server, "uninstall", "kvloop", "--wait")
    assert of_release(default) == []

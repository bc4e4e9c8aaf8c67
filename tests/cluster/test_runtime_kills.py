"""The operator killed before each of its calls, and its rights, on an API server of the test's."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.api_server import ApiServer, api_server
from cluster.operator_process import operating, wait_for
from cluster_namespace import Namespace

from kvloop.operator import rbac
from kvloop.operator.runtime.calls import Call

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(2400)]
CRDS = Path(__file__).parents[2] / "charts" / "kvloop" / "files" / "crds"
ALL = "SharedCache=kvloop.operator.controllers.shared_cache:SharedCacheController"
KINDS = (
    "deployments,statefulsets,daemonsets,services,secrets,configmaps,serviceaccounts,"
    "roles,rolebindings,leases,poddisruptionbudgets"
)
MOST_CALLS = 40
"""More than a first look makes."""


@pytest.fixture(scope="module")
def server(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """With our CRDs."""
    with api_server(tmp_path_factory.mktemp("api"), kubeconfig, ["operator"]) as made:
        space = Namespace(name="default", kubeconfig=made.kubeconfig("admin"))
        # Kubernetes before 1.25 knows no CEL rules.
        space.kubectl("apply", "--validate=false", "-f", str(CRDS))
        space.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield made


def make_spaces(server: ApiServer, *names: str) -> Namespace:
    """New namespaces, which go with the server; the first of them."""
    items = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in names]
    made = Namespace(name=names[0], kubeconfig=server.kubeconfig("admin"))
    made.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    return made


def make_caches(space: Namespace, *names: str) -> None:
    """One in each of these namespaces: masters with an election have all kinds of objects."""
    masters = {"replicas": 2, "highAvailability": "lease"}
    stores = {"replicas": 2, "segmentSize": "64Mi"}
    spec = {"backend": "mooncake", "mooncake": {"masters": masters, "stores": stores}}
    items = [
        {
            "apiVersion": "kvloop.dev/v1alpha1",
            "kind": "SharedCache",
            "metadata": {"name": "mc", "namespace": name},
            "spec": spec,
        }
        for name in names
    ]
    flags = ("apply", "--validate=false", "-f", "-")
    list_ = {"apiVersion": "v1", "kind": "List", "items": items}
    done = subprocess.run(
        ["kubectl", "--kubeconfig", space.kubeconfig, *flags],
        input=json.dumps(list_),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def looked_at(space: Namespace) -> set[str]:
    """Namespaces whose controller told what it saw."""
    found = json.loads(space.kubectl("get", "sharedcaches", "-A", "-o", "json"))["items"]
    return {
        one["metadata"]["namespace"] for one in found if one.get("status", {}).get("conditions")
    }


def objects(space: Namespace) -> dict[str, dict[str, Any]]:
    """By namespace all that was made, without what differs between two equal namespaces."""
    found = json.loads(space.kubectl("get", KINDS, "-A", "-o", "json"))["items"]
    made: dict[str, dict[str, Any]] = {}
    for one in found:
        metadata = one["metadata"]
        name = f"{one['kind']}/{metadata['name']}"
        made.setdefault(metadata["namespace"], {})[name] = essence(one, metadata["namespace"])
    return made


def essence(manifest: dict[str, Any], namespace: str) -> Any:
    """By fields that we set; random data by its keys."""
    metadata = manifest["metadata"]
    owners = [(owner["kind"], owner["name"]) for owner in metadata.get("ownerReferences", ())]
    body = {
        key: value
        for key, value in manifest.items()
        if key not in ("metadata", "status", "apiVersion", "data")
    }
    body.get("spec", {}).pop("clusterIP", None)
    body.get("spec", {}).pop("clusterIPs", None)
    text = json.dumps([body, sorted(manifest.get("data", {})), owners, metadata.get("labels")])
    return json.loads(text.replace(namespace, "NAMESPACE"))


def test_an_operator_killed_before_any_of_its_calls_ends_up_where_an_unharmed_one_does(
    server: ApiServer, tmp_path: Path
) -> None:
    admin = server.kubeconfig("admin")
    names = [f"killed-{number}" for number in range(1, MOST_CALLS + 1)]
    space = make_spaces(server, "unharmed", *names)
    make_caches(space, *names)
    flags = ("--no-leader-election", "--resync", "3600")
    with operating(
        tmp_path, admin, *flags, name="killed", controllers=ALL, kills=MOST_CALLS
    ) as operator:
        wait_for(lambda: operator.process.poll() is not None, operator, within_s=1200)
    found = re.search(r"^killed (\d+)", operator.log, re.MULTILINE)
    assert found is not None, operator.log[-3000:]
    assert int(found[1]) > 12, "fewer calls than there are objects"

    make_caches(space, "unharmed")
    everywhere = {"unharmed", *names}
    with operating(
        tmp_path, admin, "--no-leader-election", name="again", controllers=ALL
    ) as operator:
        wait_for(lambda: everywhere <= looked_at(space), operator)
        made = objects(space)
        assert len(made["unharmed"]) >= 8
        assert {name: made[name] for name in names} == dict.fromkeys(names, made["unharmed"])


def test_the_rights_are_enough_and_no_call_goes_beyond_them(
    server: ApiServer, tmp_path: Path
) -> None:
    space, own = make_spaces(server, "rights"), make_spaces(server, "own")
    grant(space, "watched")
    grant(own, "own")
    make_caches(space, "rights")
    flags = ("--namespace", "rights", "--own-namespace", "own", "--resync", "1")
    operator_config = server.kubeconfig("operator")
    with operating(tmp_path, operator_config, *flags, controllers=ALL) as operator:
        wait_for(lambda: "rights" in looked_at(space), operator)
        wait_for(
            lambda: operator.metric("kvloop_operator_reconcile_total", result="ok") > 3, operator
        )
        wait_for(
            lambda: operator.metric("kvloop_operator_api_calls_total", verb="watch") >= 8, operator
        )
        assert operator.kill(signal.SIGTERM) == 0
    seen = list(server.audit("operator"))
    denied = [event["requestURI"] for event in seen if not is_allowed(event)]
    assert denied == []
    assert {namespace_of(event) for event in seen} <= {"rights", "own", ""}
    calls = [call_of(event) for event in seen]
    assert rbac.refused(calls, [*rbac.WATCHED, *rbac.OWN]) == []


def grant(space: Namespace, section: str) -> None:
    """What the chart grants, to the user operator."""
    rules = yaml.safe_load(rbac.yaml_text())[section]
    group = "rbac.authorization.k8s.io"
    metadata = {"name": "operator"}
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "operator"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "operator"}],
    }
    space.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": [role, binding]}))


def is_allowed(event: dict[str, Any]) -> bool:
    """By the authorizer."""
    return bool(event["annotations"]["authorization.k8s.io/decision"] == "allow")


def namespace_of(event: dict[str, Any]) -> str:
    """Empty: of none."""
    return str(event.get("objectRef", {}).get("namespace", ""))


def call_of(event: dict[str, Any]) -> Call:
    """As the operator counts it."""
    about = event.get("objectRef")
    if about is None:
        return Call(verb=event["verb"], path=event["requestURI"])
    return Call(
        verb=event["verb"],
        group=about.get("apiGroup", ""),
        resource=about["resource"],
        subresource=about.get("subresource", ""),
        namespace=about.get("namespace", ""),
    )

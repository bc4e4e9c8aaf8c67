"""The operator killed before each of its calls, and its rights, on an API server of the test's."""

from __future__ import annotations

import json
import re
import signal
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
MOST_CALLS = 50
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


def space_of(server: ApiServer, name: str) -> Namespace:
    """A new namespace; it goes with the server."""
    made = Namespace(name=name, kubeconfig=server.kubeconfig("admin"))
    made.kubectl("create", "namespace", name)
    return made


def mooncake() -> str:
    """Masters with an election: all kinds of objects that a SharedCache has."""
    masters = {"replicas": 2, "highAvailability": "lease"}
    return json.dumps(
        {
            "apiVersion": "kvloop.dev/v1alpha1",
            "kind": "SharedCache",
            "metadata": {"name": "mc"},
            "spec": {
                "backend": "mooncake",
                "mooncake": {
                    "masters": masters,
                    "stores": {"replicas": 2, "segmentSize": "64Mi"},
                },
            },
        }
    )


def looked_at(space: Namespace) -> bool:
    """The controller told what it saw."""
    status = space.get("sharedcache", "mc").get("status", {})
    return bool(status.get("conditions"))


def objects(space: Namespace) -> dict[str, Any]:
    """All that was made, without what differs between two equal namespaces."""
    found = json.loads(space.kubectl("get", KINDS, "-o", "json"))["items"]
    return {f"{one['kind']}/{one['metadata']['name']}": essence(one, space.name) for one in found}


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
    spaces = [space_of(server, f"k{number}") for number in range(1, MOST_CALLS + 1)]
    for space in spaces:
        space.apply(mooncake())
    flags = ("--no-leader-election", "--resync", "3600")
    with operating(
        tmp_path, admin, *flags, name="killed", controllers=ALL, kills=MOST_CALLS
    ) as operator:
        wait_for(lambda: operator.process.poll() is not None, operator, within_s=1200)
    found = re.search(r"^killed (\d+), then", operator.log, re.MULTILINE)
    assert found is not None, operator.log[-3000:]
    assert int(found[1]) > 12, "fewer calls than there are objects"

    unharmed = space_of(server, "unharmed")
    unharmed.apply(mooncake())
    with operating(
        tmp_path, admin, "--no-leader-election", name="again", controllers=ALL
    ) as operator:
        for space in (unharmed, *spaces):
            wait_for(lambda space=space: looked_at(space), operator)  # type: ignore[misc]
        wanted = objects(unharmed)
        assert len(wanted) >= 8
        for space in spaces:
            assert objects(space) == wanted, space.name


def test_the_rights_are_enough_and_no_call_goes_beyond_them(
    server: ApiServer, tmp_path: Path
) -> None:
    space, own = space_of(server, "rights"), space_of(server, "own")
    grant(space, "watched")
    grant(own, "own")
    space.apply(mooncake())
    flags = ("--namespace", "rights", "--own-namespace", "own", "--resync", "1")
    operator_config = server.kubeconfig("operator")
    with operating(tmp_path, operator_config, *flags, controllers=ALL) as operator:
        wait_for(lambda: looked_at(space), operator)
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

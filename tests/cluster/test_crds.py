"""What kubectl shows of the CRDs on a real cluster: defaults, columns, scale, words."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_namespace import Namespace

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
CRDS = Path(__file__).parents[2] / "charts" / "kvloop" / "files" / "crds"
RESOURCES = """
apiVersion: kvloop.dev/v1alpha1
kind: PDCluster
metadata: {name: demo}
spec: {model: {demo: smollm2}, prefill: {resources: {limits: {cpu: 2}}}}
---
apiVersion: kvloop.dev/v1alpha1
kind: SharedCache
metadata: {name: demo}
spec: {backend: mooncake, mooncake: {stores: {replicas: 1}}}
---
apiVersion: kvloop.dev/v1alpha1
kind: MultiTurnBenchmark
metadata: {name: demo}
spec: {target: {clusterRef: {name: demo}}}
"""


@pytest.fixture(scope="module")
def space(kubeconfig: Path) -> Iterator[Namespace]:
    """With one resource of each kind, and no operator."""
    made = Namespace(name=f"b-crds-{uuid.uuid4().hex[:6]}", kubeconfig=kubeconfig)
    made.kubectl("apply", "--validate=false", "-f", str(CRDS))
    made.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    made.kubectl("create", "namespace", made.name)
    try:
        made.apply(RESOURCES)
        yield made
    finally:
        made.kubectl("delete", "namespace", made.name, "--wait=false")


def test_the_api_server_fills_in_defaults_of_parts_that_nobody_named(space: Namespace) -> None:
    spec = space.get("pdc", "demo")["spec"]
    assert spec["hicache"]["pageSize"] == 64
    assert spec["decode"]["resources"] == {"limits": {}, "requests": {}}
    assert spec["prefill"]["resources"]["limits"] == {"cpu": 2}
    assert "autoscaling" not in spec
    assert "sharedCacheRef" not in spec


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("shc", "NAME BACKEND READY REASON USED CAPACITY AGE"),
        ("pdc", "NAME READY REASON REUSE HIT PREFILL DECODE AGE"),
        ("mtb", "NAME PHASE REASON TTFT TTFT (NO REUSE) SPEEDUP HIT AGE"),
    ],
)
def test_columns_tell_the_state(space: Namespace, kind: str, columns: str) -> None:
    head = space.kubectl("get", kind).splitlines()[0]
    assert " ".join(head.split()) == columns


def test_all_kinds_are_in_one_category(space: Namespace) -> None:
    names = space.kubectl("get", "kvloop", "-o", "name").split()
    assert sorted(name.partition(".")[0] for name in names) == [
        "multiturnbenchmark",
        "pdcluster",
        "sharedcache",
    ]


def test_scale_changes_decodes_and_the_stores_replicas(space: Namespace) -> None:
    space.kubectl("scale", "pdc/demo", "--replicas=3")
    space.kubectl("scale", "shc/demo", "--replicas=2")
    assert space.get("pdc", "demo")["spec"]["decode"]["replicas"] == 3
    assert space.get("shc", "demo")["spec"]["mooncake"]["stores"]["replicas"] == 2


def test_scale_shows_the_pods_of_decode(space: Namespace) -> None:
    """As an autoscaler of the cluster reads them."""
    place = f"/apis/kvloop.dev/v1alpha1/namespaces/{space.name}/pdclusters/demo"
    whole = space.get("pdc", "demo")
    whole["status"] = {"decode": {"replicas": 2, "selector": "kvloop.dev/pdc=demo"}}
    space.kubectl("replace", "--raw", f"{place}/status", "-f", "-", stdin=json.dumps(whole))
    scale = json.loads(space.kubectl("get", "--raw", f"{place}/scale"))
    assert scale["status"] == {"replicas": 2, "selector": "kvloop.dev/pdc=demo"}


def test_a_status_is_written_by_its_own_door_only(space: Namespace) -> None:
    space.kubectl("patch", "shc/demo", "--type=merge", "-p", '{"status": {"endpoint": "x"}}')
    assert "endpoint" not in space.get("shc", "demo").get("status", {})


def test_explain_has_words_for_every_level(space: Namespace) -> None:
    said = space.kubectl("explain", "pdc.spec.hicache.writePolicy")
    assert "When prefill copies pages down." in said


def test_objects_that_are_handed_on_are_kept_whole(space: Namespace) -> None:
    patch = {"spec": {"podTemplate": {"spec": {"hostAliases": [{"ip": "10.0.0.1"}]}}}}
    space.kubectl("patch", "pdc/demo", "--type=merge", "-p", json.dumps(patch))
    kept = space.get("pdc", "demo")["spec"]["podTemplate"]["spec"]
    assert kept == {"hostAliases": [{"ip": "10.0.0.1"}]}

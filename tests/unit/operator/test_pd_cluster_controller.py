from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cluster_views import pod
from memory_api import MemoryApi
from pd_clusters import SETTINGS, cluster_manifest

from kvloop.operator.clusters.replicas import why_replaced, with_live
from kvloop.operator.controllers.base import Manifest, ObjectId
from kvloop.operator.controllers.pd_cluster import PDClusterController
from kvloop.operator.names import PAIRED_GATE, REASON, SPEC_REPLICAS

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


async def look(api: MemoryApi, **spec: Any) -> dict[str, Any]:
    controller = PDClusterController(SETTINGS, now=lambda: NOW)
    manifest = cluster_manifest(**spec)
    result = await controller.reconcile(manifest, api)
    return dict(result.status)


def ready(status: dict[str, Any]) -> tuple[str, str, str]:
    one = next(one for one in status["conditions"] if one["type"] == "Ready")
    return one["status"], one["reason"], one["message"]


def shared_cache(name: str = "a") -> Manifest:
    spec = {"backend": "file", "file": {"volume": {"persistentVolumeClaim": "files"}}}
    return {
        "apiVersion": "kvloop.dev/v1alpha1",
        "kind": "SharedCache",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": spec,
    }


def live(api: MemoryApi, role: str) -> Manifest:
    what = ObjectId(api_version="apps/v1", kind="Deployment", namespace="ns", name=f"demo-{role}")
    return api.objects[what]


async def test_all_parts_are_made_and_a_second_look_changes_nothing(api: MemoryApi) -> None:
    assert ready(await look(api))[:2] == ("False", "PodsNotReady")
    made = {(kind, name) for _, kind, name in api.calls}
    assert {name for kind, name in made if kind == "Deployment"} == {
        "demo-prefill",
        "demo-decode",
        "demo-router",
    }
    assert ("Secret", "demo-keys") in made and ("Service", "demo") in made
    await look(api)
    api.calls.clear()
    await look(api)
    assert api.calls == []


async def test_keys_are_random_and_stay(api: MemoryApi) -> None:
    await look(api)
    await look(api)
    other = MemoryApi()
    await look(other)
    keys = [
        next(one for one in seen.of_kind("Secret") if one["metadata"]["name"] == "demo-keys")
        for seen in (api, other)
    ]
    texts = [base64.b64decode(one["data"]["admin-key"]) for one in keys]
    assert texts[0] != texts[1] and min(map(len, texts)) >= 32


async def test_a_missing_shared_cache_is_named_and_nothing_is_made(api: MemoryApi) -> None:
    status = await look(api, sharedCacheRef={"name": "a"})
    assert ready(status)[:2] == ("False", "CacheNotReady")
    assert "there is no SharedCache a in this namespace" in ready(status)[2]
    assert api.of_kind("Deployment") == []


async def test_a_cache_that_is_taken_away_leaves_the_pods_as_they_are(api: MemoryApi) -> None:
    cache = api.add(shared_cache())
    await look(api, sharedCacheRef={"name": "a"})
    before = json.dumps(api.of_kind("Deployment"))
    del api.objects[next(what for what in api.objects if what.kind == "SharedCache")]
    assert cache["metadata"]["name"] == "a"
    assert ready(await look(api, sharedCacheRef={"name": "a"}))[1] == "CacheNotReady"
    assert json.dumps(api.of_kind("Deployment")) == before


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"adminKeySecret": {"name": "s", "key": "k"}}, "spec.adminKeySecret"),
        ({"router": {"apiKeysSecret": {"name": "s", "key": "k"}}}, "spec.router.apiKeysSecret"),
        (
            {"model": {"huggingFace": {"id": "a/b", "tokenSecret": {"name": "s", "key": "k"}}}},
            "spec.model.huggingFace.tokenSecret",
        ),
    ],
)
async def test_a_missing_secret_or_key_is_named(
    api: MemoryApi, spec: dict[str, Any], field: str
) -> None:
    status, reason, message = ready(await look(api, **spec))
    assert (status, reason) == ("False", "SecretNotFound")
    assert message.startswith(f"{field}: there is no Secret s")
    secret = {"apiVersion": "v1", "kind": "Secret", "data": {"other": "eA=="}}
    api.add({**secret, "metadata": {"name": "s", "namespace": "ns"}})
    assert ready(await look(api, **spec))[2] == f"{field}: Secret s has no text under key k"


async def test_a_broken_rule_is_told_with_its_field(api: MemoryApi) -> None:
    status = await look(api, rollout={"maxSurge": 0, "maxUnavailable": 0})
    assert ready(status)[:2] == ("False", "InvalidConfig")
    assert "maxSurge and maxUnavailable cannot both be 0" in ready(status)[2]
    assert status["observedGeneration"] == 1


async def test_gates_are_opened(api: MemoryApi) -> None:
    made = pod("decode", ready=False)
    made["status"]["conditions"] = []
    await look(api)
    template = live(api, "decode")["spec"]["template"]["metadata"]["labels"]
    made["metadata"]["labels"] = dict(template)
    api.add(made)
    await look(api)
    (shown,) = api.of_kind("Pod")
    assert shown["status"]["conditions"][0]["type"] == PAIRED_GATE
    assert shown["status"]["conditions"][0]["status"] == "True"


# --- whose replicas -------------------------------------------------------------------------


def deployment(replicas: int = 1, template: str = "t", flag: str = "16") -> Manifest:
    box = {"name": "decode", "image": "i", "args": ["--page-size", flag, "--generation", template]}
    return {
        "metadata": {
            "annotations": {SPEC_REPLICAS: str(replicas), "kvloop.dev/template": template}
        },
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [box]}}},
    }


def scaled(manifest: Manifest, replicas: int) -> Manifest:
    spec = {**manifest["spec"], "replicas": replicas}
    return {"metadata": {**manifest["metadata"], "resourceVersion": "7"}, "spec": spec}


def test_replicas_that_somebody_scaled_stay() -> None:
    found = with_live(deployment(1), scaled(deployment(1), 3))
    assert found["spec"]["replicas"] == 3
    assert found["metadata"]["resourceVersion"] == "7", "written only if nobody wrote since"


def test_a_changed_number_of_the_resource_wins() -> None:
    found = with_live(deployment(2), scaled(deployment(1), 3))
    assert found["spec"]["replicas"] == 2
    assert "resourceVersion" not in found["metadata"]


def test_the_operators_own_autoscaling_sets_replicas() -> None:
    assert with_live(deployment(1), scaled(deployment(1), 3), scaled=5)["spec"]["replicas"] == 5


def test_a_new_deployment_has_the_resources_number() -> None:
    assert with_live(deployment(4), None)["spec"]["replicas"] == 4


def test_why_pods_are_replaced_is_written_and_stays() -> None:
    rolled = with_live(deployment(template="u", flag="32"), scaled(deployment(), 1))
    assert rolled["metadata"]["annotations"][REASON] == "--page-size 32"
    again = with_live(deployment(template="u", flag="32"), scaled(rolled, 1))
    assert again["metadata"]["annotations"][REASON] == "--page-size 32"


def test_an_unchanged_template_has_no_reason() -> None:
    assert why_replaced(deployment(3), scaled(deployment(1), 1)) == ""


def test_what_flags_do_not_show_is_still_a_reason() -> None:
    assert why_replaced(deployment(template="u"), deployment()) == "settings of the pods"

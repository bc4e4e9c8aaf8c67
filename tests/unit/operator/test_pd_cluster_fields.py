"""Every field of a PDCluster reaches a flag, a manifest, or the part that is named here."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from pd_clusters import built, cluster, container_of, file_connection, flag, pod_of
from pydantic import BaseModel

from kvloop.operator.types.pd_cluster import PDClusterSpec

Manifests = Mapping[str, Any]
Look = Callable[[Manifests], Any]


def _flag(role: str, name: str) -> Look:
    return lambda m: flag(container_of(m, role), name)


def _flags(name: str) -> Look:
    """Of both kinds of node, which must agree."""

    def look(manifests: Manifests) -> Any:
        prefill, decode = (flag(container_of(manifests, r), name) for r in ("prefill", "decode"))
        assert prefill == decode
        return prefill

    return look


def _pod(role: str, *path: str | int) -> Look:
    return lambda m: _at(pod_of(m, role), path)


def _box(role: str, *path: str | int) -> Look:
    return lambda m: _at(container_of(m, role), path)


def _object(name: str, *path: str | int) -> Look:
    return lambda m: _at(m[name], path)


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _env(role: str, name: str) -> Look:
    def look(manifests: Manifests) -> Any:
        found = [e for e in container_of(manifests, role)["env"] if e["name"] == name]
        return found[0]["value"]

    return look


HUB = {"id": "org/name", "revision": "main"}
IMAGE = {"reference": "registry/my-model:3"}
Case = tuple[dict[str, Any], Look, Any]


def _hub(**more: Any) -> dict[str, Any]:
    return {"model": {"huggingFace": {**HUB, **more}}}


def _init(*path: str | int) -> Look:
    return _pod("prefill", "spec", "initContainers", 0, *path)


def _role_cases(role: str) -> dict[str, Case]:
    """What all three roles have."""

    def spec(**fields: Any) -> dict[str, Any]:
        return {role: fields}

    strategy = {"maxSkew": 1}
    return {
        f"{role}.replicas": (
            spec(replicas=3),
            _object(f"Deployment/demo-{role}", "spec", "replicas"),
            3,
        ),
        f"{role}.gpus": (
            spec(gpus=2),
            _box(role, "resources", "limits", "nvidia.com/gpu"),
            "2",
        ),
        f"{role}.gpuResource": (
            spec(gpus=1, gpuResource="amd.com/gpu"),
            _box(role, "resources", "requests", "amd.com/gpu"),
            "1",
        ),
        f"{role}.rdma.resourceName": (
            spec(rdma={"resourceName": "rdma/hca"}),
            _box(role, "resources", "limits", "rdma/hca"),
            "1",
        ),
        f"{role}.rdma.count": (
            spec(rdma={"resourceName": "rdma/hca", "count": 4}),
            _box(role, "resources", "limits", "rdma/hca"),
            "4",
        ),
        f"{role}.rdma.hostNetwork": (
            spec(rdma={"hostNetwork": True}),
            lambda m: (
                pod_of(m, role)["spec"]["hostNetwork"],
                pod_of(m, role)["spec"]["dnsPolicy"],
            ),
            (True, "ClusterFirstWithHostNet"),
        ),
        f"{role}.rdma.ipcLock": (
            spec(rdma={"resourceName": "rdma/hca", "ipcLock": True}),
            _box(role, "securityContext", "capabilities", "add"),
            ["IPC_LOCK"],
        ),
        f"{role}.resources.requests": (
            spec(resources={"requests": {"cpu": "2"}}),
            _box(role, "resources", "requests"),
            {"cpu": "2"},
        ),
        f"{role}.resources.limits": (
            spec(resources={"limits": {"memory": "3Gi"}}),
            _box(role, "resources", "limits"),
            {"memory": "3Gi"},
        ),
        f"{role}.env": (spec(env=[{"name": "A", "value": "b"}]), _env(role, "A"), "b"),
        f"{role}.extraArgs": (
            spec(extraArgs=["--log-level", "debug"]),
            lambda m: container_of(m, role)["args"][-2:],
            ["--log-level", "debug"],
        ),
        f"{role}.podTemplate.metadata": (
            spec(podTemplate={"metadata": {"labels": {"a": "b"}}}),
            _pod(role, "metadata", "labels", "a"),
            "b",
        ),
        f"{role}.podTemplate.spec": (
            spec(podTemplate={"spec": {"topologySpreadConstraints": [strategy]}}),
            _pod(role, "spec", "topologySpreadConstraints"),
            [strategy],
        ),
        f"{role}.nodeSelector": (
            spec(nodeSelector={"pool": "gpu"}),
            _pod(role, "spec", "nodeSelector"),
            {"pool": "gpu"},
        ),
        f"{role}.tolerations": (
            spec(tolerations=[{"key": "gpu"}]),
            _pod(role, "spec", "tolerations"),
            [{"key": "gpu"}],
        ),
        f"{role}.affinity": (
            spec(affinity={"podAffinity": {}}),
            _pod(role, "spec", "affinity"),
            {"podAffinity": {}},
        ),
        f"{role}.priorityClassName": (
            spec(priorityClassName="high"),
            _pod(role, "spec", "priorityClassName"),
            "high",
        ),
        f"{role}.finishSeconds": (
            spec(finishSeconds=7),
            lambda m: (
                flag(container_of(m, role), "finish-timeout-s"),
                pod_of(m, role)["spec"]["terminationGracePeriodSeconds"],
            ),
            ("7", 37 if role == "router" else 52),
        ),
    }


def _node_cases(role: str) -> dict[str, Case]:
    numbers = {
        "maxTotalTokens": "max-total-tokens",
        "maxRunningRequests": "max-running-requests",
        "chunkedPrefillSize": "chunked-prefill-size",
        "threads": "threads",
    }
    cases: dict[str, Case] = {
        f"{role}.{field}": ({role: {field: 128}}, _flag(role, name), "128")
        for field, name in numbers.items()
    }
    cases[f"{role}.rdma.devices"] = (
        {role: {"rdma": {"resourceName": "rdma/hca", "devices": ["mlx5_0", "mlx5_1"]}}},
        _flag(role, "transfer-device"),
        "mlx5_0,mlx5_1",
    )
    cases[f"{role}.drainSeconds"] = (
        {role: {"drainSeconds": 5}},
        lambda m: (
            flag(container_of(m, role), "drain-timeout-s"),
            pod_of(m, role)["spec"]["terminationGracePeriodSeconds"],
        ),
        ("5", 90),
    )
    return cases


CASES: dict[str, Case] = {
    "image.reference": (
        {"image": {"reference": "mine:2"}},
        lambda m: {container_of(m, r)["image"] for r in ("prefill", "decode", "router")},
        {"mine:2"},
    ),
    "image.pullPolicy": (
        {"image": {"pullPolicy": "Never"}},
        _box("decode", "imagePullPolicy"),
        "Never",
    ),
    "image.pullSecrets.name": (
        {"image": {"pullSecrets": [{"name": "s"}]}},
        _pod("router", "spec", "imagePullSecrets"),
        [{"name": "s"}],
    ),
    "model.demo": ({"model": {"demo": "smollm2"}}, _flags("model"), "smollm2"),
    "model.huggingFace.id": (_hub(), _init("args", 0), "org/name"),
    "model.huggingFace.revision": (_hub(revision="v2"), _init("args", 1), "v2"),
    "model.huggingFace.tokenSecret.name": (
        _hub(tokenSecret={"name": "hub", "key": "token"}),
        _init("env", 2, "valueFrom", "secretKeyRef", "name"),
        "hub",
    ),
    "model.huggingFace.tokenSecret.key": (
        _hub(tokenSecret={"name": "hub", "key": "token"}),
        _init("env", 2, "valueFrom", "secretKeyRef", "key"),
        "token",
    ),
    "model.huggingFace.cacheClaim": (
        _hub(cacheClaim="kept"),
        lambda m: [v for v in pod_of(m, "decode")["spec"]["volumes"] if v["name"] == "model"],
        [{"name": "model", "persistentVolumeClaim": {"claimName": "kept"}}],
    ),
    "model.claim.claim": (
        {"model": {"claim": {"claim": "weights"}}},
        lambda m: [v for v in pod_of(m, "decode")["spec"]["volumes"] if v["name"] == "model"],
        [{"name": "model", "persistentVolumeClaim": {"claimName": "weights", "readOnly": True}}],
    ),
    "model.claim.path": (
        {"model": {"claim": {"claim": "weights", "path": "a/b"}}},
        _flags("model"),
        "/var/lib/kvloop/model/a/b",
    ),
    "model.image.reference": ({"model": {"image": IMAGE}}, _init("image"), IMAGE["reference"]),
    "model.image.path": (
        {"model": {"image": {**IMAGE, "path": "/weights/"}}},
        _init("args", 0),
        "/weights",
    ),
    "model.image.pullPolicy": (
        {"model": {"image": {**IMAGE, "pullPolicy": "Always"}}},
        _init("imagePullPolicy"),
        "Always",
    ),
    "model.servedName": (
        {"model": {"demo": "smollm2", "servedName": "chat"}},
        _flags("served-model-name"),
        "chat",
    ),
    "model.dtype": ({"model": {"demo": "smollm2", "dtype": "float32"}}, _flags("dtype"), "float32"),
    "model.contextLength": (
        {"model": {"demo": "smollm2", "contextLength": 512}},
        _flags("context-length"),
        "512",
    ),
    "router.port": (
        {"router": {"port": 80}},
        _object("Service/demo", "spec", "ports", 0, "port"),
        80,
    ),
    "router.serviceType": (
        {"router": {"serviceType": "NodePort"}},
        _object("Service/demo", "spec", "type"),
        "NodePort",
    ),
    "router.apiKeysSecret.name": (
        {"router": {"apiKeysSecret": {"name": "users", "key": "list"}}},
        lambda m: pod_of(m, "router")["spec"]["volumes"][2]["projected"]["sources"][1],
        {"secret": {"name": "users", "items": [{"key": "list", "path": "api-keys"}]}},
    ),
    "router.apiKeysSecret.key": (
        {"router": {"apiKeysSecret": {"name": "users", "key": "list"}}},
        _flag("router", "api-keys"),
        "/etc/kvloop/secrets/api-keys",
    ),
    "router.maxQueued": ({"router": {"maxQueued": 5}}, _flag("router", "max-queued"), "5"),
    "hicache.pageSize": ({"hicache": {"pageSize": 16}}, _flags("page-size"), "16"),
    "hicache.ratio": ({"hicache": {"ratio": 3.5}}, _flag("prefill", "hicache-ratio"), "3.5"),
    "hicache.sizeGb": (
        {"hicache": {"sizeGb": 1.5}},
        lambda m: (
            flag(container_of(m, "prefill"), "hicache-size"),
            flag(container_of(m, "prefill"), "hicache-ratio"),
        ),
        ("1.5", None),
    ),
    "hicache.writePolicy": (
        {"hicache": {"writePolicy": "write_back"}},
        _flag("prefill", "hicache-write-policy"),
        "write_back",
    ),
    "hicache.ioBackend": (
        {"hicache": {"ioBackend": "direct"}},
        _flags("hicache-io-backend"),
        "direct",
    ),
    "hicache.memLayout": (
        {"hicache": {"memLayout": "layer_first"}},
        _flags("hicache-mem-layout"),
        "layer_first",
    ),
    "hicache.codec": ({"hicache": {"codec": "int8"}}, _flags("hicache-codec"), "int8"),
    "hicache.prefetchPolicy": (
        {"hicache": {"prefetchPolicy": "timeout"}},
        _flag("prefill", "hicache-storage-prefetch-policy"),
        "timeout",
    ),
    "hicache.evictionPolicy": (
        {"hicache": {"evictionPolicy": "lfu"}},
        _flags("radix-eviction-policy"),
        "lfu",
    ),
    "hicache.tenantQuotas": (
        {"hicache": {"tenantQuotas": {"a": 5}}},
        _flag("prefill", "hicache-tenant-quotas"),
        '{"a":5}',
    ),
    "offload.enabled": (
        {"offload": {"enabled": False}},
        _flag("decode", "hicache-storage-attach-file"),
        None,
    ),
    "offload.policy": ({"offload": {"policy": "all"}}, _flag("decode", "offload-policy"), "all"),
    "offload.backPressure": (
        {"offload": {"backPressure": "drop_newest"}},
        _flag("decode", "offload-back-pressure"),
        "drop_newest",
    ),
    "offload.sizeGb": ({"offload": {"sizeGb": 0.25}}, _flag("decode", "hicache-size"), "0.25"),
    "offload.deadlineSeconds": (
        {"offload": {"deadlineSeconds": 3}},
        _flag("decode", "offload-deadline-s"),
        "3",
    ),
    "offload.tailObjects": (
        {"offload": {"tailObjects": True}},
        _flags("tail-objects"),
        "--tail-objects",
    ),
    "zone": (
        {"zone": "edge"},
        lambda m: {flag(container_of(m, r), "zone") for r in ("prefill", "decode", "router")},
        {"edge"},
    ),
    "transferProtocol": (
        {
            "transferProtocol": "rdma",
            "prefill": {"rdma": {"resourceName": "rdma/hca"}},
            "decode": {"rdma": {"resourceName": "rdma/hca"}},
        },
        _flags("transfer-protocol"),
        "rdma",
    ),
    "canary.enabled": (
        {"canary": {"enabled": False}},
        _flag("router", "canary-interval-s"),
        "0",
    ),
    "canary.intervalSeconds": (
        {"canary": {"intervalSeconds": 9}},
        _flag("router", "canary-interval-s"),
        "9",
    ),
    "canary.timeoutSeconds": (
        {"canary": {"timeoutSeconds": 8}},
        _flag("router", "canary-timeout-s"),
        "8",
    ),
    "rollout.maxSurge": (
        {"rollout": {"maxSurge": 2}},
        _object("Deployment/demo-decode", "spec", "strategy", "rollingUpdate", "maxSurge"),
        2,
    ),
    "rollout.maxUnavailable": (
        {"rollout": {"maxUnavailable": 1}},
        _object("Deployment/demo-prefill", "spec", "strategy", "rollingUpdate", "maxUnavailable"),
        1,
    ),
    "rollout.timeoutSeconds": (
        {"rollout": {"timeoutSeconds": 99}},
        _object("Deployment/demo-router", "spec", "progressDeadlineSeconds"),
        99,
    ),
    "adminKeySecret.name": (
        {"adminKeySecret": {"name": "mine", "key": "k"}},
        _box("router", "env", 4, "valueFrom", "secretKeyRef", "name"),
        "mine",
    ),
    "adminKeySecret.key": (
        {"adminKeySecret": {"name": "mine", "key": "k"}},
        _box("prefill", "env", 4, "valueFrom", "secretKeyRef", "key"),
        "k",
    ),
    "podTemplate.metadata": (
        {"podTemplate": {"metadata": {"annotations": {"a": "b"}}}},
        _pod("router", "metadata", "annotations", "a"),
        "b",
    ),
    "podTemplate.spec": (
        {"podTemplate": {"spec": {"runtimeClassName": "kata"}}},
        _pod("decode", "spec", "runtimeClassName"),
        "kata",
    ),
    **{
        name: case
        for role in ("prefill", "decode", "router")
        for name, case in _role_cases(role).items()
    },
    **_node_cases("prefill"),
    **_node_cases("decode"),
}

ELSEWHERE = {
    "engine": "another builder",
    "sglang": "another builder",
    "prefill.tensorParallelSize": "of engine sglang",
    "decode.tensorParallelSize": "of engine sglang",
    "router.rdma.devices": "the router moves no KV",
    "sharedCacheRef": "test_pd_cluster_build.py",
    "attachableCaches": "test_pd_cluster_build.py",
    "releaseTag": "test_pd_cluster_revision.py",
    "autoscaling": "the controller",
}


@pytest.mark.parametrize("field", CASES)
def test_a_field_reaches_the_pods(field: str) -> None:
    spec, look, expected = CASES[field]
    assert look(built(cluster(**spec))) == expected


def test_no_field_is_forgotten() -> None:
    told = set(_leaves(PDClusterSpec)) - set(CASES)
    forgotten = {f for f in told if not any(f == e or f.startswith(f"{e}.") for e in ELSEWHERE)}
    assert forgotten == set()


@pytest.mark.parametrize("field", [f for f in CASES if not f.endswith(("demo", "replicas"))])
def test_a_fields_test_would_see_it_missing(field: str) -> None:
    _, look, expected = CASES[field]
    try:
        unset = look(built(cluster()))
    except (KeyError, IndexError):
        return
    assert unset != expected


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        below = [t for t in _types(field.annotation) if issubclass(t, BaseModel)]
        if not below:
            yield path
        for inner in below:
            yield from _leaves(inner, f"{path}.")


def _types(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _types(inner)


def test_connections_reach_every_role() -> None:
    manifests = built(cluster(sharedCacheRef={"name": "a"}), [file_connection("a")])
    for role in ("prefill", "decode", "router"):
        assert file_connection("a").mounts[0] in container_of(manifests, role)["volumeMounts"]
        assert file_connection("a").volumes[0] in pod_of(manifests, role)["spec"]["volumes"]

"""Manifests of engine sglang."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest
from pd_clusters import built, container_of, file_connection, flag, pod_of
from sglang_clusters import MOONCAKE, sglang

from kvloop.operator.build.sglang.storage import storage_of
from kvloop.operator.connection import Connection, SecretField
from kvloop.operator.errors import ConnectError, InvalidResource
from kvloop.operator.names import REVISION

ROLES = ("prefill", "decode", "router")
CACHED = {"sharedCacheRef": {"name": "c"}}
HF3FS = Connection(
    cache="c",
    backend="hf3fs",
    extra_config={"mount": "/3fs", "directory": "kvloop", "io": "auto"},
    volumes=({"name": "cache-shared-memory", "emptyDir": {"medium": "Memory"}},),
    mounts=({"name": "cache-shared-memory", "mountPath": "/dev/shm"},),
)
RDMA = {"resourceName": "rdma/devices"}
SERVER = {"hf3fs": {"metadataServer": "http://meta:18000", "fileSize": "2Gi"}}


def env_of(manifests: Any, role: str = "prefill") -> dict[str, Any]:
    box = container_of(manifests, role)
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in box["env"]}


def stored(extra: dict[str, Any], backend: str, **more: Any) -> Any:
    """What SGLang is told of a cache: its Storage."""
    connection = Connection(cache="c", backend=backend, extra_config=extra, **more)
    return storage_of(connection, "tag", sglang().spec)


def variables(storage: Any) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in storage.env}


@pytest.mark.parametrize("version", ["1.27", "1.37"])
def test_manifests_are_what_kubernetes_knows(version: str) -> None:
    wanted = sglang(**CACHED, sglang=SERVER, prefill={"gpus": 1})
    for manifest in built(wanted, [HF3FS]).values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_what_is_made_belongs_to_the_cluster() -> None:
    manifests = built(sglang(**CACHED), [MOONCAKE])
    assert set(manifests) == {
        "ServiceAccount/demo",
        "ServiceAccount/demo-router",
        "Role/demo-router",
        "RoleBinding/demo-router",
        "Service/demo",
        *(f"Deployment/demo-{role}" for role in ROLES),
    }
    owners = [one["metadata"]["ownerReferences"][0]["uid"] for one in manifests.values()]
    assert set(owners) == {"u1"}


@pytest.mark.parametrize("role", ROLES)
def test_pods_are_restricted(role: str) -> None:
    spec, box = pod_of(built(sglang()), role)["spec"], container_of(built(sglang()), role)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert box["securityContext"]["allowPrivilegeEscalation"] is False
    assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert box["securityContext"]["readOnlyRootFilesystem"] is True
    assert "hostNetwork" not in spec
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]


def test_only_the_router_has_a_token_and_it_may_only_watch_pods() -> None:
    manifests = built(sglang())
    tokens = {
        role: pod_of(manifests, role)["spec"]["automountServiceAccountToken"] for role in ROLES
    }
    assert tokens == {"prefill": False, "decode": False, "router": True}
    assert manifests["Role/demo-router"]["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    ]
    account = pod_of(manifests, "router")["spec"]["serviceAccountName"]
    assert manifests["RoleBinding/demo-router"]["subjects"][0]["name"] == account == "demo-router"


def test_the_router_watches_pods_that_carry_its_labels_and_generation() -> None:
    manifests = built(sglang())
    words = container_of(manifests, "router")["args"]
    for role in ("prefill", "decode"):
        at = words.index(f"--{role}-selector")
        wanted = dict(word.split("=") for word in words[at + 1 : at + 4])
        labels = pod_of(manifests, role)["metadata"]["labels"]
        assert wanted.items() <= labels.items()
        assert wanted[REVISION] == labels[REVISION]


def test_prefill_tells_the_router_its_bootstrap_port() -> None:
    manifests = built(sglang(sglang={"bootstrapPort": 9001}))
    annotations = {r: pod_of(manifests, r)["metadata"]["annotations"] for r in ROLES}
    assert annotations["prefill"]["sglang.ai/bootstrap-port"] == "9001"
    assert "sglang.ai/bootstrap-port" not in annotations["decode"]
    ports = container_of(manifests, "prefill")["ports"]
    assert {"name": "bootstrap", "containerPort": 9001, "protocol": "TCP"} in ports


@pytest.mark.parametrize(
    "change",
    [
        {"hicache": {"pageSize": 32}},
        {"hicache": {"memLayout": "page_first"}},
        {"sglang": {"image": "other:1"}},
        {"sglang": {"transferBackend": "nixl"}},
        {"decode": {"tensorParallelSize": 2, "gpus": 2}},
        {"sharedCacheRef": {"name": "c"}},
        {"releaseTag": "b"},
        {"transferProtocol": "rdma", "prefill": {"rdma": RDMA}, "decode": {"rdma": RDMA}},
    ],
    ids=str,
)
def test_nodes_that_could_disagree_are_of_two_generations(change: dict[str, Any]) -> None:
    connections = [Connection(**{**_fields(MOONCAKE), "extra_config": {**MOONCAKE.extra_config}})]
    before = pod_of(built(sglang(), connections), "decode")["metadata"]["labels"][REVISION]
    after = pod_of(built(sglang(**change), connections), "decode")["metadata"]["labels"][REVISION]
    assert before != after


def _fields(connection: Connection) -> dict[str, Any]:
    return {name: getattr(connection, name) for name in Connection.__dataclass_fields__}


def test_replicas_and_sizes_of_a_role_keep_the_generation() -> None:
    changed = sglang(prefill={"replicas": 3, "maxTotalTokens": 4096}, router={"replicas": 2})
    labels = [
        pod_of(built(one), "prefill")["metadata"]["labels"][REVISION] for one in (sglang(), changed)
    ]
    assert labels[0] == labels[1]


def test_another_cache_is_another_template_so_that_pods_roll() -> None:
    other = Connection(
        cache="c",
        backend="mooncake",
        extra_config={**MOONCAKE.extra_config, "master_server_address": "elsewhere:1"},
    )
    templates = [pod_of(built(sglang(**CACHED), [one]), "decode") for one in (MOONCAKE, other)]
    assert templates[0] != templates[1]


def test_old_nodes_stay_until_routers_have_found_the_new_ones() -> None:
    manifests = built(sglang())
    for role in ("prefill", "decode"):
        assert manifests[f"Deployment/demo-{role}"]["spec"]["minReadySeconds"] == 30
        gates = pod_of(manifests, role)["spec"]["readinessGates"]
        assert gates == [{"conditionType": "kvloop.dev/paired"}]
    assert "readinessGates" not in pod_of(manifests, "router")["spec"]


def test_probes_are_sglangs_own_paths() -> None:
    manifests = built(sglang())
    paths = {
        role: container_of(manifests, role)["readinessProbe"]["httpGet"]["path"] for role in ROLES
    }
    assert paths == {"prefill": "/health", "decode": "/health", "router": "/readiness"}


def test_the_admin_key_is_in_the_environment_of_nodes_only() -> None:
    manifests = built(sglang())
    key = {"secretKeyRef": {"name": "demo-keys", "key": "admin-key"}}
    assert env_of(manifests, "decode")["KVLOOP_ADMIN_API_KEY"] == key
    assert flag(container_of(manifests, "decode"), "admin-api-key") == "$(KVLOOP_ADMIN_API_KEY)"
    assert "KVLOOP_ADMIN_API_KEY" not in env_of(manifests, "router")


def test_each_node_is_known_by_its_own_address() -> None:
    env = env_of(built(sglang(**CACHED), [MOONCAKE]))
    assert env["MOONCAKE_LOCAL_HOSTNAME"] == "$(POD_IP)" == env["SGLANG_HOST_IP"]
    assert env["POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert env["MOONCAKE_PROTOCOL"] == "tcp"


def test_tcp_between_nodes_is_mooncakes_without_rdma_or_ucx_over_tcp() -> None:
    mooncake = container_of(built(sglang()), "prefill")
    assert flag(mooncake, "disaggregation-transfer-backend") == "mooncake_tcp"
    nixl = built(sglang(sglang={"transferBackend": "nixl"}))
    assert flag(container_of(nixl, "prefill"), "disaggregation-transfer-backend") == "nixl"
    assert env_of(nixl)["UCX_TLS"].startswith("tcp")


def test_mooncakes_store_is_told_in_the_extra_config() -> None:
    box = container_of(built(sglang(**CACHED), [MOONCAKE]), "decode")
    assert flag(box, "hicache-storage-backend") == "mooncake"
    extra = json.loads(str(flag(box, "hicache-storage-backend-extra-config")))
    tag = extra.pop("extra_backend_tag")
    assert len(tag) == 16  # pages of another release are never found
    assert extra == {
        "master_server_address": "c-master.ns.svc:50051",
        "metadata_server": "P2PHANDSHAKE",
        "protocol": "tcp",
        "device_name": "",
        "global_segment_size": 0,
    }


def test_mooncakes_cluster_and_tenant_are_handed_on() -> None:
    storage = stored({**MOONCAKE.extra_config, "cluster_id": "x", "tenant_id": "t"}, "mooncake")
    assert variables(storage) == {"MC_STORE_CLUSTER_ID": "x"}
    assert storage.extra_config["tenant_id"] == "t"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"replica_num": 2}, "one copy"),
        ({"with_soft_pin": True}, "pins none"),
        ({"protocol": "rdma"}, "transferProtocol must be rdma"),
    ],
    ids=["replicas", "pins", "rdma"],
)
def test_what_sglang_cannot_do_with_mooncake_is_said(extra: dict[str, Any], words: str) -> None:
    with pytest.raises(ConnectError, match=words):
        stored({**MOONCAKE.extra_config, **extra}, "mooncake")


def test_files_of_a_release_lie_in_a_directory_of_their_own() -> None:
    env = env_of(built(sglang(**CACHED), [file_connection("c")]))
    folder = env["SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR"]
    assert folder.startswith("/var/lib/kvloop/cache/c/kvloop/sglang-")
    bounded = stored({"root": "/r", "capacity_bytes": 1 << 30}, "file")
    assert variables(bounded)["SGLANG_HICACHE_FILE_BACKEND_MAX_SIZE"] == str(1 << 30)


def test_3fs_needs_sglangs_metadata_server_and_gets_its_file() -> None:
    with pytest.raises(ConnectError, match="metadata server"):
        built(sglang(**CACHED), [HF3FS])
    manifests = built(sglang(**CACHED, sglang=SERVER), [HF3FS])
    assert env_of(manifests)["SGLANG_HICACHE_HF3FS_CONFIG_PATH"] == "/etc/kvloop/sglang/hf3fs.json"
    config = json.loads(manifests["ConfigMap/demo-sglang"]["data"]["hf3fs.json"])
    assert config["file_path_prefix"].startswith("/3fs/kvloop/sglang-")
    assert config["file_size"] == 2 << 30
    assert config["metadata_server_url"] == "http://meta:18000"
    assert (config["numjobs"], config["entries"]) == (16, 8)
    mounts = container_of(manifests, "prefill")["volumeMounts"]
    files = {"name": "sglang-files", "mountPath": "/etc/kvloop/sglang", "readOnly": True}
    assert files in mounts
    # 3FS's own /dev/shm, and no other.
    assert [one["name"] for one in mounts if one["mountPath"] == "/dev/shm"] == [
        "cache-shared-memory"
    ]


def test_ranks_have_shared_memory_to_meet_in() -> None:
    spec = pod_of(built(sglang()), "prefill")["spec"]
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory"}} in spec["volumes"]


def test_nixls_plugins_are_named_as_sglang_names_them() -> None:
    files = variables(stored({"plugin": "HF3FS", "root": "/r"}, "nixl"))
    assert files == {
        "SGLANG_HICACHE_NIXL_BACKEND_PLUGIN": "3FS",
        "SGLANG_HICACHE_NIXL_BACKEND_STORAGE_DIR": "/r/sglang-tag",
    }
    with pytest.raises(ConnectError, match="UCX is kvloop's own"):
        stored({"plugin": "UCX", "server": "s:1"}, "nixl")


def test_a_buckets_keys_stay_out_of_the_command_line() -> None:
    storage = stored(
        {"plugin": "OBJ", "bucket": "b", "endpoint_override": "http://s3", "access_key": "AK"},
        "nixl",
        secrets=(
            SecretField(secret="s", key="access_key", path=("access_key",)),
            SecretField(secret="s", key="secret_key", path=("secret_key",)),
        ),
    )
    assert storage.extra_config == {"bucket": "b", "endpoint_override": "http://s3"}
    env = variables(storage)
    assert env["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "s", "key": "access_key"}}
    assert env["AWS_SECRET_ACCESS_KEY"] == {"secretKeyRef": {"name": "s", "key": "secret_key"}}


def test_aibrix_is_told_by_its_environment() -> None:
    env = variables(stored({"l2_cache_backend": "SHFS", "root": "/r"}, "aibrix"))
    assert env["AIBRIX_KV_CACHE_OL_L2_CACHE_BACKEND"] == "SHFS"
    assert env["AIBRIX_KV_CACHE_OL_SHFS_ROOT"] == "/r/sglang-tag"
    assert env["AIBRIX_KV_CACHE_OL_L2_CACHE_NAMESPACE"] == "tag"


def test_a_class_of_ones_own_is_handed_on_unless_it_has_secrets() -> None:
    extra = {"backend_name": "c", "module_path": "m", "class_name": "C", "interface_v1": 0}
    assert stored(extra, "dynamic").extra_config == {"extra_backend_tag": "tag", **extra}
    with pytest.raises(ConnectError, match="configSecret"):
        stored(extra, "dynamic", secrets=(SecretField(secret="s", key="k", is_json=True),))


def test_zones_are_kvloops_own() -> None:
    with pytest.raises(ConnectError, match="SGLang has no backend zones"):
        stored({}, "zones")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"image": {"reference": "i"}}, "sglang.image"),
        ({"hicache": {"codec": "fp8"}}, "no codec"),
        ({"hicache": {"tenantQuotas": {"a": 1}}}, "no tenants"),
        ({"offload": {"policy": "all"}}, "one way of offloading"),
        ({"offload": {"backPressure": "drop_newest"}}, "one way of offloading"),
        ({"offload": {"deadlineSeconds": 5}}, "one way of offloading"),
        ({"offload": {"tailObjects": True}}, "one way of offloading"),
        ({"decode": {"threads": 2}}, "threads"),
        ({"router": {"apiKeysSecret": {"name": "s", "key": "k"}}}, "no tenants"),
        ({"zone": "edge"}, "no zones"),
        ({"autoscaling": {"prefill": {"maxReplicas": 2}}}, "engine kvloop"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_fields_that_sglang_has_no_equal_of_are_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidResource, match=words):
        sglang(**spec)


def test_the_users_environment_flags_and_template_come_last() -> None:
    manifests = built(
        sglang(
            prefill={
                "env": [{"name": "MOONCAKE_PROTOCOL", "value": "efa"}],
                "extraArgs": ["--log-level", "debug"],
                "podTemplate": {"spec": {"runtimeClassName": "nvidia"}},
            },
            podTemplate={"metadata": {"labels": {"team": "a"}}},
        )
    )
    assert env_of(manifests)["MOONCAKE_PROTOCOL"] == "efa"
    assert container_of(manifests, "prefill")["args"][-2:] == ["--log-level", "debug"]
    assert pod_of(manifests, "prefill")["spec"]["runtimeClassName"] == "nvidia"
    assert pod_of(manifests, "router")["metadata"]["labels"]["team"] == "a"

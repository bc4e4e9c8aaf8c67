"""What runs for a SharedCache."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest
from shared_caches import OLD, SETTINGS, built, cache, cache_manifest, container_of, flags_of

from kvloop.cli.main import build_parser
from kvloop.operator.build.shared_cache import build_shared_cache
from kvloop.operator.build.shared_cache.possible import possible
from kvloop.operator.parse import InvalidResource, parse_shared_cache
from kvloop.operator.types.shared_cache import SharedCache

LEASE = {"replicas": 2, "highAvailability": "lease"}
ETCD = {"replicas": 2, "highAvailability": "etcd", "etcdEndpoints": ["e:2379"]}
RDMA = {"resourceName": "rdma/hca", "devices": ["mlx5_0"], "hostNetwork": True, "ipcLock": True}
ALL: list[SharedCache] = [
    cache("mooncake", stores={}),
    cache("mooncake", masters=LEASE, stores={"replicas": 2, "ssd": {"size": "10Gi"}}),
    cache("mooncake", masters=ETCD, stores={"workload": "DaemonSet", "ssd": {"hostPath": "/ssd"}}),
    cache("mooncake", stores={}, protocol="rdma", rdma=RDMA),
    cache("nixl", plugin="UCX", store={}),
    cache("hf3fs", volume={"persistentVolumeClaim": "c"}, capacity="1Ti"),
    cache("hf3fs", fuse={"podLabels": {"a": "b"}}, capacity="1Ti"),
]


def _words(wanted: SharedCache, kind: str = "StatefulSet", name: str = "mc-master") -> list[str]:
    return list(flags_of(built(wanted)[f"{kind}/{name}"]))


@pytest.mark.parametrize("wanted", ALL, ids=range(len(ALL)))
@pytest.mark.parametrize("version", ["1.27", "1.37"])
def test_manifests_are_valid(wanted: SharedCache, version: str) -> None:
    for manifest in build_shared_cache(wanted, SETTINGS):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("wanted", ALL, ids=range(len(ALL)))
def test_everything_belongs_to_its_cache(wanted: SharedCache) -> None:
    for manifest in build_shared_cache(wanted, SETTINGS):
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("SharedCache", "mc-u")
        assert manifest["metadata"]["namespace"] == "ns"
        assert manifest["metadata"]["labels"]["kvloop.dev/shc"] == "mc"


@pytest.mark.parametrize("wanted", ALL, ids=range(len(ALL)))
def test_commands_are_such_as_the_command_line_takes(wanted: SharedCache) -> None:
    for manifest in build_shared_cache(wanted, SETTINGS):
        if manifest["kind"] in ("StatefulSet", "DaemonSet", "CronJob"):
            program, *words = flags_of(manifest)
            assert program == "kvloop"
            assert build_parser().parse_args(words) is not None


@pytest.mark.parametrize("wanted", ALL, ids=range(len(ALL)))
def test_pods_keep_to_the_restricted_level(wanted: SharedCache) -> None:
    is_special = wanted.spec.mooncake is not None and wanted.spec.mooncake.rdma is not None
    for manifest in build_shared_cache(wanted, SETTINGS):
        if manifest["kind"] not in ("StatefulSet", "DaemonSet", "CronJob"):
            continue
        security = container_of(manifest)["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"]["drop"] == ["ALL"]
        assert security["readOnlyRootFilesystem"] is True
        is_store = manifest["metadata"]["name"] == "mc-store"
        assert ("add" in security["capabilities"]) == (is_special and is_store)


@pytest.mark.parametrize("wanted", ALL, ids=range(len(ALL)))
def test_what_can_be_built_can_be_removed_later(wanted: SharedCache) -> None:
    kept = ("Lease", "ServiceAccount", "Role", "RoleBinding")
    known = {(what.kind, what.name) for what in possible(wanted, SETTINGS)}
    made = {
        (m["kind"], m["metadata"]["name"])
        for m in build_shared_cache(wanted, SETTINGS)
        if m["kind"] not in kept
    }
    assert made <= known


@pytest.mark.parametrize(
    "wanted",
    [
        cache("file", volume={"persistentVolumeClaim": "c"}),
        cache("mooncake", external="m:50051"),
        cache("nixl", plugin="UCX", server="s:1"),
        cache("hf3fs", volume={"persistentVolumeClaim": "c"}),
        cache("dynamic", modulePath="m", className="C"),
    ],
    ids=lambda one: one.spec.backend,
)
def test_nothing_runs_for_a_store_that_is_there(wanted: SharedCache) -> None:
    assert build_shared_cache(wanted, SETTINGS) == []


def test_a_single_master_starts_again_by_itself_and_needs_no_rights() -> None:
    manifests = built(cache("mooncake", stores={}))
    command = flags_of(manifests["StatefulSet/mc-master"])

    assert "--restart-master" in command
    assert "--segment-size=0" in command
    assert not {"Role/mc-master", "Lease/mc-master", "ServiceAccount/mc-master"} & set(manifests)
    spec = manifests["StatefulSet/mc-master"]["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False


def test_no_service_of_the_namespace_gets_into_the_environment() -> None:
    """Names such as KVLOOP_PORT would be taken for settings."""
    manifests = built(cache("mooncake", stores={}))
    for name in ("mc-master", "mc-store"):
        spec = manifests[f"StatefulSet/{name}"]["spec"]["template"]["spec"]
        assert spec["enableServiceLinks"] is False


def test_a_store_runs_kvloops_image_unless_the_resource_names_another() -> None:
    named = cache_manifest("mooncake", stores={})
    named["spec"]["image"] = {
        "reference": "mine:2",
        "pullPolicy": "Always",
        "pullSecrets": [{"name": "registry"}],
    }
    plain = built(cache("mooncake", stores={}))["StatefulSet/mc-store"]
    other = built(parse_shared_cache(named))["StatefulSet/mc-store"]

    assert container_of(plain)["image"] == "kvloop-node:1"
    assert container_of(other)["image"] == "mine:2"
    assert container_of(other)["imagePullPolicy"] == "Always"
    pod = other["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_masters_that_elect_are_found_by_the_leaders_label() -> None:
    manifests = built(cache("mooncake", masters={**LEASE, "leaseSeconds": 60}, stores={}))
    command = flags_of(manifests["StatefulSet/mc-master"])

    assert manifests["Service/mc-master"]["spec"]["selector"]["kvloop.dev/leader"] == "true"
    assert "--lease=ns/mc-master" in command
    assert "--identity=$(POD_NAME)_$(POD_UID)" in command
    assert "--lease-s=60" in command
    assert "--restart-master" not in command


def test_masters_that_elect_may_do_no_more_than_that() -> None:
    manifests = built(cache("mooncake", masters={**LEASE, "replicas": 3}, stores={}))

    assert manifests["Role/mc-master"]["rules"] == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["mc-master"],
            "verbs": ["get", "update"],
        },
        {
            "apiGroups": [""],
            "resources": ["pods"],
            "resourceNames": ["mc-master-0", "mc-master-1", "mc-master-2"],
            "verbs": ["patch"],
        },
    ]
    assert "spec" not in manifests["Lease/mc-master"]  # the masters' own
    pod = manifests["StatefulSet/mc-master"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "mc-master"
    assert pod["automountServiceAccountToken"] is True


def test_masters_in_etcd_are_probed_where_they_listen_without_leading() -> None:
    manifests = built(cache("mooncake", masters=ETCD, stores={}))
    container = container_of(manifests["StatefulSet/mc-master"])

    assert container["readinessProbe"]["tcpSocket"]["port"] == 9003
    assert "--ha=etcd://e:2379" in container["command"]
    assert "--cluster-id=ns-mc" in container["command"]
    assert "Service/mc-master" not in manifests
    assert "--cluster-id=ns-mc" in flags_of(manifests["StatefulSet/mc-store"])
    assert "--master=etcd://e:2379" in flags_of(manifests["StatefulSet/mc-store"])


def test_ports_and_flags_of_masters_reach_them() -> None:
    masters = {"port": 1, "metricsPort": 2, "flags": {"eviction_ratio": "0.1"}}
    manifests = built(cache("mooncake", masters=masters, stores={}))
    command = flags_of(manifests["StatefulSet/mc-master"])

    assert {"--port=1", "--metrics-port=2", "--master-flag=eviction_ratio=0.1"} <= set(command)
    ports = manifests["Service/mc-master"]["spec"]["ports"]
    assert [(port["name"], port["port"]) for port in ports] == [("rpc", 1), ("metrics", 2)]
    assert "--master=mc-master.ns.svc:1" in flags_of(manifests["StatefulSet/mc-store"])


def test_quotas_reach_the_masters_in_gib() -> None:
    wanted = cache("mooncake", stores={}, tenant="a", tenantQuotas={"a": "512Mi", "b": "2Gi"})
    (flag,) = [word for word in _words(wanted) if word.startswith("--tenant-quotas=")]

    assert json.loads(flag.partition("=")[2]) == {"a": 0.5, "b": 2.0}


def test_stores_are_as_many_and_as_large_as_asked_for() -> None:
    wanted = cache("mooncake", stores={"replicas": 3, "segmentSize": "512Mi"})
    store = built(wanted)["StatefulSet/mc-store"]

    assert store["spec"]["replicas"] == 3
    assert "--segment-size=0.5" in flags_of(store)


def test_a_stores_memory_is_its_segment_and_some_more() -> None:
    container = container_of(built(cache("mooncake", stores={}))["StatefulSet/mc-store"])

    assert container["resources"]["limits"]["memory"] == str((4 << 30) + (512 << 20))
    assert container["resources"]["requests"] == {
        "cpu": "100m",
        "memory": container["resources"]["limits"]["memory"],
    }


def test_resources_that_a_user_sets_stay() -> None:
    resources = {"limits": {"memory": "8Gi", "cpu": "2"}, "requests": {"memory": "6Gi"}}
    wanted = cache("mooncake", stores={"resources": resources}, masters={"resources": resources})

    store = container_of(built(wanted)["StatefulSet/mc-store"])["resources"]
    assert store["limits"] == {"memory": "8Gi", "cpu": "2"}
    assert store["requests"] == {"memory": "6Gi", "cpu": "2"}
    assert container_of(built(wanted)["StatefulSet/mc-master"])["resources"] == resources


@pytest.mark.parametrize(
    ("stores", "field"),
    [
        ({"segmentSize": "1Mi"}, "spec.mooncake.stores.segmentSize"),
        (
            {"segmentSize": "4Gi", "resources": {"limits": {"memory": "4Gi"}}},
            "spec.mooncake.stores.resources.limits.memory",
        ),
        (
            {"workload": "DaemonSet", "ssd": {"size": "1Gi"}},
            "spec.mooncake.stores.ssd.size",
        ),
    ],
)
def test_stores_that_could_not_run_are_refused(stores: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidResource) as error:
        cache("mooncake", stores=stores)
    assert [problem.field for problem in error.value.problems] == [field]


def test_a_daemon_set_has_a_store_on_each_machine_that_was_chosen() -> None:
    stores = {"workload": "DaemonSet", "nodeSelector": {"disk": "fast"}, "tolerations": [{}]}
    store = built(cache("mooncake", stores=stores))["DaemonSet/mc-store"]

    assert "replicas" not in store["spec"]
    pod = store["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert pod["tolerations"] == [{}]


def test_rdma_gives_stores_devices_network_and_locked_memory_and_masters_nothing() -> None:
    manifests = built(cache("mooncake", stores={}, protocol="rdma", rdma=RDMA))
    store, master = manifests["StatefulSet/mc-store"], manifests["StatefulSet/mc-master"]

    pod, container = store["spec"]["template"]["spec"], container_of(store)
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert container["resources"]["limits"]["rdma/hca"] == "1"
    assert container["resources"]["requests"]["rdma/hca"] == "1"
    assert container["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
    assert {"--protocol=rdma", "--device-name=mlx5_0"} <= set(container["command"])
    assert "hostNetwork" not in master["spec"]["template"]["spec"]
    assert "add" not in container_of(master)["securityContext"]["capabilities"]


def test_without_rdma_stores_have_no_special_right() -> None:
    pod = built(cache("mooncake", stores={}))["StatefulSet/mc-store"]["spec"]["template"]["spec"]

    assert "hostNetwork" not in pod


def test_a_claim_for_pages_goes_with_the_cache_and_is_never_overfilled() -> None:
    ssd = {"size": "10Gi", "storageClassName": "nvme"}
    manifests = built(cache("mooncake", stores={"ssd": ssd}))
    store = manifests["StatefulSet/mc-store"]
    (claim,) = store["spec"]["volumeClaimTemplates"]

    assert claim["metadata"]["ownerReferences"][0]["uid"] == "mc-u"
    assert claim["spec"]["storageClassName"] == "nvme"
    assert claim["spec"]["resources"] == {"requests": {"storage": "10Gi"}}
    env = {one["name"]: one.get("value") for one in container_of(store)["env"]}
    assert int(env["MOONCAKE_OFFLOAD_TOTAL_SIZE_LIMIT_BYTES"] or 0) == int(0.9 * (10 << 30))
    assert "--ssd-dir=/var/lib/kvloop/ssd/$(POD_NAME)" in flags_of(store)
    assert "--master-flag=enable_offload=true" in flags_of(manifests["StatefulSet/mc-master"])


def test_stores_of_one_machine_share_its_directory_without_meeting() -> None:
    store = built(cache("mooncake", stores={"ssd": {"hostPath": "/ssd"}}))["StatefulSet/mc-store"]

    volumes = store["spec"]["template"]["spec"]["volumes"]
    assert {"name": "ssd", "hostPath": {"path": "/ssd", "type": "Directory"}} in volumes
    assert "--ssd-dir=/var/lib/kvloop/ssd/$(POD_NAME)" in flags_of(store)
    assert "volumeClaimTemplates" not in store["spec"]


def test_a_users_variable_takes_the_place_of_ours_and_flags_come_last() -> None:
    env = [{"name": "HOME", "value": "/home"}, {"name": "MC_LOG", "value": "1"}]
    stores = {"env": env, "extraArgs": ["--client-ttl=3"]}
    container = container_of(built(cache("mooncake", stores=stores))["StatefulSet/mc-store"])

    names = [one["name"] for one in container["env"]]
    assert len(names) == len(set(names))
    assert env[0] in container["env"] and env[1] in container["env"]
    assert container["command"][-1] == "--client-ttl=3"


def test_a_users_template_is_laid_over_the_pods() -> None:
    over = {"metadata": {"annotations": {"a": "b"}}, "spec": {"hostname": "h"}}
    stores = {"podTemplate": over, "priorityClassName": "high"}
    template = built(cache("mooncake", stores=stores))["StatefulSet/mc-store"]["spec"]["template"]

    assert template["metadata"]["annotations"] == {"a": "b"}
    assert template["metadata"]["labels"]["kvloop.dev/shc"] == "mc"
    assert template["spec"]["hostname"] == "h"
    assert template["spec"]["priorityClassName"] == "high"


def test_stores_wait_for_masters_that_start_later() -> None:
    assert "--join-s=120" in _words(cache("mooncake", stores={}), name="mc-store")


def test_all_members_but_one_stay_during_a_drain() -> None:
    many = built(cache("mooncake", masters=LEASE, stores={"replicas": 2}))
    one = built(cache("mooncake", stores={}))

    for name in ("mc-master", "mc-store"):
        assert many[f"PodDisruptionBudget/{name}"]["spec"]["maxUnavailable"] == 1
    assert not [name for name in one if name.startswith("PodDisruptionBudget")]


def test_a_memory_server_gets_a_core_and_its_service() -> None:
    store = {"port": 5000, "segmentSize": "2Gi"}
    manifests = built(cache("nixl", plugin="UCX", store=store))
    container = container_of(manifests["StatefulSet/mc-nixl"])

    assert container["command"][1:] == [
        "nixl-store",
        "--host=$(POD_IP)",
        "--port=5000",
        "--segment-size=2.0",
    ]
    assert container["resources"]["requests"] == {"cpu": "1", "memory": str(3 << 30)}
    assert manifests["Service/mc-nixl"]["spec"]["ports"][0]["port"] == 5000


def test_the_janitor_evicts_down_to_the_capacity_by_plain_calls() -> None:
    wanted = cache(
        "hf3fs",
        volume={"persistentVolumeClaim": "c"},
        capacity="1Ti",
        janitorSchedule="5 * * * *",
        extraConfig={"numjobs": 2},
    )
    job = built(wanted)["CronJob/mc-janitor"]
    words = flags_of(job)

    assert job["spec"]["schedule"] == "5 * * * *"
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert f"--to={1 << 40}B" in words
    (config,) = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    assert json.loads(config) == {
        "mount": "/3fs",
        "directory": "kvloop",
        "io": "posix",
        "numjobs": 2,
    }


def test_the_janitor_is_given_the_side_car_too() -> None:
    wanted = cache(
        "hf3fs", fuse={"podLabels": {"a": "b"}, "podAnnotations": {"c": "d"}}, capacity="1Ti"
    )
    template = built(wanted)["CronJob/mc-janitor"]["spec"]["jobTemplate"]["spec"]["template"]

    assert template["metadata"]["labels"]["a"] == "b"
    assert template["metadata"]["annotations"] == {"c": "d"}


def test_clusters_before_1_21_get_the_versions_that_they_know() -> None:
    janitor = cache("hf3fs", volume={"persistentVolumeClaim": "c"}, capacity="1Ti")
    masters = cache("mooncake", masters=LEASE, stores={})

    assert built(janitor, OLD)["CronJob/mc-janitor"]["apiVersion"] == "batch/v1beta1"
    assert built(janitor)["CronJob/mc-janitor"]["apiVersion"] == "batch/v1"
    budget = "PodDisruptionBudget/mc-master"
    assert built(masters, OLD)[budget]["apiVersion"] == "policy/v1beta1"
    assert built(masters)[budget]["apiVersion"] == "policy/v1"

"""Mooncake's stores: pods whose memory, and SSD, keep the bytes of pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvloop.operator.build import pod
from kvloop.operator.build.owned import owned
from kvloop.operator.build.shared_cache import frame
from kvloop.operator.connect.mooncake import cluster_id, master_address
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.quantity import num_bytes
from kvloop.operator.settings import Settings
from kvloop.operator.types.mooncake import Mooncake, MooncakeSsd, MooncakeStores
from kvloop.operator.types.pods import Rdma, Resources
from kvloop.operator.types.shared_cache import SharedCache

COMPONENT = "mooncake-store"
HEALTH_PORT = 8081
"""Of `kvloop store`; pages move over ports that the library chooses."""
SSD_DIR = "/var/lib/kvloop/ssd"
HEADROOM, SSD_HEADROOM = 512 << 20, 1 << 30
"""Of a pod's memory limit above its segment, where the resource sets none; and with an SSD."""
_SSD = "ssd"
_SSD_SHARE = 0.9
"""Of a claim: a file system needs room of its own."""
_JOIN_S = 120
"""Masters may start later than their stores."""


def build_stores(cache: SharedCache, settings: Settings) -> list[Manifest]:
    """A headless Service, and the pods; fewer disruptions at a time where there are several."""
    store = _mooncake(cache)
    stores = _stores(store)
    name = stores_name(cache)
    ports = {"health": HEALTH_PORT}
    manifests = [frame.headless(cache, name, COMPONENT, ports), _workload(cache, settings)]
    if stores.workload == "DaemonSet" or stores.replicas > 1:
        manifests.append(frame.disruption_budget(cache, settings, name, COMPONENT))
    return manifests


def stores_name(cache: SharedCache) -> str:
    """Of their StatefulSet or DaemonSet, and of their Service."""
    return f"{cache.metadata.name}-store"


def command(cache: SharedCache) -> list[str]:
    """Of one store."""
    store = _mooncake(cache)
    stores = _stores(store)
    words = [
        "kvloop",
        "store",
        f"--master={master_address(cache)}",
        f"--join-s={_JOIN_S}",
        "--host=$(POD_IP)",
        f"--health-port={HEALTH_PORT}",
        f"--segment-size={num_bytes(stores.segment_size) / 2**30!r}",
        f"--protocol={store.protocol}",
    ]
    if store.rdma is not None and store.rdma.devices:
        words.append(f"--device-name={','.join(store.rdma.devices)}")
    if stores.ssd is not None:
        words.append(f"--ssd-dir={SSD_DIR}/$(POD_NAME)")
    if store.masters.high_availability == "etcd":
        words.append(f"--cluster-id={cluster_id(cache)}")
    return words


def _workload(cache: SharedCache, settings: Settings) -> Manifest:
    stores = _stores(_mooncake(cache))
    spec: dict[str, Any] = {
        "selector": {"matchLabels": frame.pods_of(cache, COMPONENT)},
        "template": _template(cache, settings),
    }
    if stores.workload == "StatefulSet":
        spec |= {
            "replicas": stores.replicas,
            "serviceName": stores_name(cache),
            "podManagementPolicy": "Parallel",
        }
        if stores.ssd is not None and stores.ssd.size is not None:
            spec["volumeClaimTemplates"] = [_claim(cache, stores.ssd)]
    return {
        "apiVersion": "apps/v1",
        "kind": stores.workload,
        "metadata": frame.metadata(cache, stores_name(cache), COMPONENT),
        "spec": spec,
    }


def _template(cache: SharedCache, settings: Settings) -> Manifest:
    store = _mooncake(cache)
    stores, rdma = _stores(store), store.rdma or Rdma()
    network = (
        {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if rdma.host_network else {}
    )
    ssd = stores.ssd
    made = stores.model_copy(update={"env": [*_ssd_environment(ssd), *stores.env]})
    return frame.template(
        cache,
        settings,
        made,
        component=COMPONENT,
        command=command(cache),
        resources=pod.resources(_resources(stores), pod.rdma_devices(rdma)),
        probes=_probes(),
        ports={"health": HEALTH_PORT},
        mounts=[] if ssd is None else [{"name": _SSD, "mountPath": SSD_DIR}],
        volumes=_ssd_volumes(ssd),
        ipc_lock=rdma.ipc_lock,
        **network,
    )


def _probes() -> Manifest:
    """Ready once its segment is in the store, for which it may have to wait for a master."""
    ready = frame.http_probe("/readyz", HEALTH_PORT, periodSeconds=3, failureThreshold=2)
    alive = frame.http_probe("/healthz", HEALTH_PORT, periodSeconds=10, failureThreshold=6)
    start = frame.http_probe("/healthz", HEALTH_PORT, periodSeconds=2, failureThreshold=60)
    return {"readinessProbe": ready, "livenessProbe": alive, "startupProbe": start}


def _resources(stores: MooncakeStores) -> Resources:
    """A segment's memory is taken at once: what is requested is what is limited."""
    headroom = HEADROOM if stores.ssd is None else HEADROOM + SSD_HEADROOM
    limits = {"memory": str(num_bytes(stores.segment_size) + headroom), **stores.resources.limits}
    cpu = stores.resources.limits.get("cpu", "100m")
    requests = {"cpu": cpu, "memory": limits["memory"], **stores.resources.requests}
    return Resources(requests=requests, limits=limits)


def _ssd_environment(ssd: MooncakeSsd | None) -> list[Mapping[str, Any]]:
    """A claim is never overfilled: what is oldest goes; Mooncake's default would stop writing."""
    if ssd is None or ssd.size is None:
        return []
    limit = str(int(num_bytes(ssd.size) * _SSD_SHARE))
    return [{"name": "MOONCAKE_OFFLOAD_TOTAL_SIZE_LIMIT_BYTES", "value": limit}]


def _ssd_volumes(ssd: MooncakeSsd | None) -> list[Manifest]:
    if ssd is None or ssd.host_path is None:
        return []
    return [{"name": _SSD, "hostPath": {"path": ssd.host_path, "type": "Directory"}}]


def _claim(cache: SharedCache, ssd: MooncakeSsd) -> Manifest:
    """Owned by the cache: what a StatefulSet makes of it would outlive it otherwise."""
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": ssd.size}},
    }
    if ssd.storage_class_name is not None:
        spec["storageClassName"] = ssd.storage_class_name
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": _SSD, "labels": frame.cache_labels(cache, COMPONENT)},
        "spec": spec,
    }
    made = owned(claim, "SharedCache", cache.metadata)
    del made["metadata"]["namespace"]  # it is the StatefulSet's
    return made


def _mooncake(cache: SharedCache) -> Mooncake:
    assert cache.spec.mooncake is not None
    return cache.spec.mooncake


def _stores(store: Mooncake) -> MooncakeStores:
    assert store.stores is not None
    return store.stores

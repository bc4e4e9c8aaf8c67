"""Backend mooncake: masters and stores run here, or a master that is there."""

from __future__ import annotations

from typing import Any

from kvloop.operator.connect.parts import with_extra
from kvloop.operator.connection import Connection
from kvloop.operator.types.mooncake import Mooncake
from kvloop.operator.types.pods import Rdma
from kvloop.operator.types.shared_cache import SharedCache

POD_IP = "${POD_IP}"


def master_service(cache: SharedCache) -> str:
    """Name of the Service before the master that leads, and of the masters' StatefulSet."""
    return f"{cache.metadata.name}-master"


def peers_service(cache: SharedCache) -> str:
    """Name of the headless Service that gives each master a name of its own."""
    return f"{cache.metadata.name}-masters"


def cluster_id(cache: SharedCache) -> str:
    """Of these masters among all of one etcd."""
    return f"{cache.metadata.namespace}-{cache.metadata.name}"


def master_address(cache: SharedCache) -> str:
    """As stores and nodes take it: host:port, or etcd://…."""
    store = cache.spec.mooncake
    assert store is not None
    if store.external is not None:
        return store.external
    masters = store.masters
    if masters.high_availability == "etcd":
        return f"etcd://{';'.join(masters.etcd_endpoints)}"
    return f"{master_service(cache)}.{cache.metadata.namespace}.svc:{masters.port}"


def metrics_addresses(cache: SharedCache) -> tuple[str, ...]:
    """host:port of masters that answer over HTTP; with etcd it is not known which one leads."""
    store = cache.spec.mooncake
    assert store is not None
    masters, namespace = store.masters, cache.metadata.namespace
    if store.external is not None:
        if "://" in store.external:
            return ()
        hosts = [part.strip().rpartition(":")[0] for part in store.external.split(",")]
    elif masters.high_availability == "etcd":
        peers, name = peers_service(cache), master_service(cache)
        hosts = [f"{name}-{i}.{peers}.{namespace}.svc" for i in range(masters.replicas)]
    else:
        hosts = [f"{master_service(cache)}.{namespace}.svc"]
    return tuple(f"{host}:{masters.metrics_port}" for host in hosts)


def connect_mooncake(cache: SharedCache) -> Connection:
    """Nodes are clients only: they give the store no memory of their own."""
    store = cache.spec.mooncake
    assert store is not None
    rdma = store.rdma or Rdma()
    return Connection(
        cache=cache.metadata.name,
        backend="mooncake",
        extra_config=with_extra("mooncake", _config(cache, store), store.extra_config),
        resources={} if rdma.resource_name is None else {rdma.resource_name: str(rdma.count)},
        host_network=rdma.host_network,
        ipc_lock=rdma.ipc_lock,
    )


def _config(cache: SharedCache, store: Mooncake) -> dict[str, Any]:
    config: dict[str, Any] = {
        "master_server_address": master_address(cache),
        "local_hostname": POD_IP,
        "protocol": store.protocol,
        "replica_num": store.replicas,
    }
    if metrics := metrics_addresses(cache):
        config["master_metrics_address"] = ",".join(metrics)
    if store.external is None and store.masters.high_availability == "etcd":
        config["cluster_id"] = cluster_id(cache)
    if store.rdma is not None and store.rdma.devices:
        config["device_name"] = ",".join(store.rdma.devices)
    if store.soft_pin:
        config["with_soft_pin"] = True
    if store.tenant is not None:
        config["tenant_id"] = store.tenant
    return config

"""Mooncake's masters: a StatefulSet, the Service before the one that leads, names for each."""

from __future__ import annotations

import json
from typing import Any

from kvloop.operator import names
from kvloop.operator.build import pod
from kvloop.operator.build.shared_cache import frame
from kvloop.operator.connect.mooncake import (
    cluster_id,
    master_address,
    master_service,
    peers_service,
)
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.quantity import num_bytes
from kvloop.operator.settings import Settings
from kvloop.operator.types.mooncake import Mooncake, MooncakeMasters
from kvloop.operator.types.pods import Resources
from kvloop.operator.types.shared_cache import SharedCache

COMPONENT = "mooncake-master"
HEALTH_PORT = 8081
"""Of `kvloop store --lease`: a master that does not lead listens nowhere else."""
_RESOURCES = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "2Gi"})


def build_masters(cache: SharedCache, settings: Settings) -> list[Manifest]:
    """With etcd there is no Service before the leader: clients look it up there."""
    store = _mooncake(cache)
    ports = _service_ports(store.masters)
    manifests = [frame.headless(cache, peers_service(cache), COMPONENT, ports)]
    if store.masters.high_availability != "etcd":
        manifests.append(_service(cache, store.masters))
    manifests.append(_stateful_set(cache, settings))
    if store.masters.replicas > 1:
        name = master_service(cache)
        manifests.append(frame.disruption_budget(cache, settings, name, COMPONENT))
    return manifests


def command(cache: SharedCache) -> list[str]:
    """Of one master."""
    store = _mooncake(cache)
    masters = store.masters
    words = ["kvloop", "store", "--segment-size=0", "--host=$(POD_IP)", f"--port={masters.port}"]
    words.append(f"--metrics-port={masters.metrics_port}")
    if masters.high_availability == "lease":
        words += _lease_flags(cache, masters)
    else:
        words.append("--restart-master")
    if masters.high_availability == "etcd":
        words += [f"--ha={master_address(cache)}", f"--cluster-id={cluster_id(cache)}"]
    if store.tenant_quotas:
        gib = {tenant: num_bytes(size) / 2**30 for tenant, size in store.tenant_quotas.items()}
        words.append(f"--tenant-quotas={json.dumps(gib)}")
    return words + [f"--master-flag={name}={value}" for name, value in _flags(store).items()]


def _lease_flags(cache: SharedCache, masters: MooncakeMasters) -> list[str]:
    return [
        f"--lease={cache.metadata.namespace}/{master_service(cache)}",
        "--identity=$(POD_NAME)_$(POD_UID)",
        f"--lease-s={masters.lease_seconds}",
        f"--health-port={HEALTH_PORT}",
    ]


def _flags(store: Mooncake) -> dict[str, str]:
    has_ssd = store.stores is not None and store.stores.ssd is not None
    return {**({"enable_offload": "true"} if has_ssd else {}), **store.masters.flags}


def _service(cache: SharedCache, masters: MooncakeMasters) -> Manifest:
    selector = frame.pods_of(cache, COMPONENT)
    if masters.high_availability == "lease":
        selector[names.LEADER] = "true"
    ports = frame.service_ports(_service_ports(masters))
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": frame.metadata(cache, master_service(cache), COMPONENT),
        "spec": {"selector": selector, "ports": ports},
    }


def _stateful_set(cache: SharedCache, settings: Settings) -> Manifest:
    masters = _mooncake(cache).masters
    is_elected = masters.high_availability == "lease"
    account: dict[str, Any] = (
        {"serviceAccountName": master_service(cache), "automountServiceAccountToken": True}
        if is_elected
        else {}
    )
    template = frame.template(
        cache,
        settings,
        masters,
        component=COMPONENT,
        command=command(cache),
        resources=pod.resources(_resources(masters)),
        probes=_probes(masters),
        ports=_service_ports(masters) | ({"health": HEALTH_PORT} if is_elected else {}),
        **account,
    )
    spec = {
        "replicas": masters.replicas,
        "serviceName": peers_service(cache),
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": frame.pods_of(cache, COMPONENT)},
        "template": template,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": frame.metadata(cache, master_service(cache), COMPONENT),
        "spec": spec,
    }


def _probes(masters: MooncakeMasters) -> Manifest:
    if masters.high_availability == "lease":
        ready = frame.http_probe("/readyz", HEALTH_PORT, periodSeconds=2, failureThreshold=2)
        alive = frame.http_probe("/healthz", HEALTH_PORT, periodSeconds=10, failureThreshold=3)
        start = frame.http_probe("/healthz", HEALTH_PORT, periodSeconds=2, failureThreshold=60)
    else:
        # One of several masters in etcd listens on its RPC port only while it leads.
        in_etcd = masters.high_availability == "etcd"
        port = masters.metrics_port if in_etcd else masters.port
        ready = frame.tcp_probe(port, periodSeconds=3, failureThreshold=2)
        alive = frame.tcp_probe(port, periodSeconds=10, failureThreshold=3)
        start = frame.tcp_probe(port, periodSeconds=2, failureThreshold=60)
    return {"readinessProbe": ready, "livenessProbe": alive, "startupProbe": start}


def _resources(masters: MooncakeMasters) -> Resources:
    wanted = masters.resources
    return wanted if wanted.requests or wanted.limits else _RESOURCES


def _service_ports(masters: MooncakeMasters) -> dict[str, int]:
    return {"rpc": masters.port, "metrics": masters.metrics_port}


def _mooncake(cache: SharedCache) -> Mooncake:
    assert cache.spec.mooncake is not None
    return cache.spec.mooncake

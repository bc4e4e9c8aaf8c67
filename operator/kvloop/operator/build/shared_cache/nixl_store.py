"""The memory server of backend nixl with plugin UCX."""

from __future__ import annotations

from kvloop.operator.build import pod
from kvloop.operator.build.shared_cache import frame
from kvloop.operator.connect.nixl import nixl_service
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.quantity import num_bytes
from kvloop.operator.settings import Settings
from kvloop.operator.types.pods import Resources
from kvloop.operator.types.shared_cache import NixlStores, SharedCache

COMPONENT = "nixl-store"
HEADROOM = 1 << 30
"""Of the memory limit above the segment: the records, and the process itself."""


def build_nixl_store(cache: SharedCache, settings: Settings) -> list[Manifest]:
    """One pod: a memory server has no replicas. A StatefulSet never runs two of it."""
    store = _store(cache)
    name, ports = nixl_service(cache), {"control": store.port}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": frame.metadata(cache, name, COMPONENT),
        "spec": {
            "selector": frame.pods_of(cache, COMPONENT),
            "ports": frame.service_ports(ports),
        },
    }
    template = frame.template(
        cache,
        settings,
        store,
        component=COMPONENT,
        command=command(store),
        resources=pod.resources(_resources(store)),
        probes=_probes(store.port),
        ports=ports,
    )
    spec = {
        "replicas": 1,
        "serviceName": name,
        "selector": {"matchLabels": frame.pods_of(cache, COMPONENT)},
        "template": template,
    }
    stateful_set = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": frame.metadata(cache, name, COMPONENT),
        "spec": spec,
    }
    return [service, stateful_set]


def command(store: NixlStores) -> list[str]:
    """Of the server."""
    gib = num_bytes(store.segment_size) / 2**30
    words = ["kvloop", "nixl-store", "--host=$(POD_IP)", f"--port={store.port}"]
    return [*words, f"--segment-size={gib!r}"]


def _probes(port: int) -> Manifest:
    return {
        "readinessProbe": frame.tcp_probe(port, periodSeconds=3, failureThreshold=2),
        "livenessProbe": frame.tcp_probe(port, periodSeconds=10, failureThreshold=6),
        "startupProbe": frame.tcp_probe(port, periodSeconds=2, failureThreshold=60),
    }


def _resources(store: NixlStores) -> Resources:
    """Its thread polls without rest: it is given a core unless the resource says otherwise."""
    limit = str(num_bytes(store.segment_size) + HEADROOM)
    limits = {"memory": limit, **store.resources.limits}
    cpu = store.resources.limits.get("cpu", "1")
    requests = {"cpu": cpu, "memory": limits["memory"], **store.resources.requests}
    return Resources(requests=requests, limits=limits)


def _store(cache: SharedCache) -> NixlStores:
    assert cache.spec.nixl is not None and cache.spec.nixl.store is not None
    return cache.spec.nixl.store

"""What a run needs before it begins: a target that is ready, and what its pod mounts."""

from __future__ import annotations

from collections.abc import Iterator

from kvloop.operator.controllers.base import Api, Manifest, ObjectId
from kvloop.operator.runs.outcome import Outcome
from kvloop.operator.types.base import API_VERSION
from kvloop.operator.types.benchmark import MultiTurnBenchmark

DEFAULT_PORT = 8000
"""Of a router's Service, as in its resource."""


async def find_target(api: Api, benchmark: MultiTurnBenchmark) -> str | Outcome:
    """The URL, or what is waited for."""
    target = benchmark.spec.target
    if target.url is not None:
        return target.url
    assert target.cluster_ref is not None
    name = target.cluster_ref.name
    found = await api.get(_id(benchmark, API_VERSION, "PDCluster", name))
    if found is None:
        return _wait("ClusterNotFound", f"there is no PDCluster {name} in this namespace")
    if (words := _not_ready(found)) is not None:
        return _wait("ClusterNotReady", f"PDCluster {name} {words}")
    port = found.get("spec", {}).get("router", {}).get("port", DEFAULT_PORT)
    return f"http://{name}.{benchmark.metadata.namespace}.svc:{port}"


def _not_ready(cluster: Manifest) -> str | None:
    generation = cluster["metadata"].get("generation", 0)
    for condition in cluster.get("status", {}).get("conditions") or ():
        if condition.get("type") == "Ready":
            if condition.get("observedGeneration", 0) < generation:
                return "was changed, and has not been looked at since"
            if condition.get("status") == "True":
                return None
            return f"is not ready: {condition.get('reason')}: {condition.get('message', '')}"
    return "has not been looked at yet"


async def missing_input(api: Api, benchmark: MultiTurnBenchmark) -> Outcome | None:
    """Named, as a pod that waits for it says nothing in its status."""
    for kind, name, key in _inputs(benchmark):
        found = await api.get(_id(benchmark, "v1", kind, name))
        if found is None:
            return _wait("InputMissing", f"there is no {kind} {name} in this namespace")
        held = {**(found.get("data") or {}), **(found.get("binaryData") or {})}
        if key is not None and key not in held:
            return _wait("InputMissing", f"{kind} {name} has no key {key}")
    return None


def _inputs(benchmark: MultiTurnBenchmark) -> Iterator[tuple[str, str, str | None]]:
    file, secret = benchmark.spec.workload.file, benchmark.spec.target.api_key_secret
    if secret is not None:
        yield "Secret", secret.name, secret.key
    if file is not None and file.config_map is not None:
        yield "ConfigMap", file.config_map, file.path
    if file is not None and file.volume is not None and file.volume.persistent_volume_claim:
        yield "PersistentVolumeClaim", file.volume.persistent_volume_claim, None


def _id(benchmark: MultiTurnBenchmark, api_version: str, kind: str, name: str) -> ObjectId:
    return ObjectId(
        api_version=api_version, kind=kind, namespace=benchmark.metadata.namespace, name=name
    )


def _wait(reason: str, message: str) -> Outcome:
    return Outcome(phase="Pending", reason=reason, message=message)

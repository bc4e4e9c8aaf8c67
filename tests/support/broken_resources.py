"""For every rule between fields, a resource that breaks it and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]
Spec = dict[str, Any]

DEMO: Spec = {"model": {"demo": "smollm2"}}
HUB: Spec = {"model": {"huggingFace": {"id": "a/b"}}}
SGLANG: Spec = {**HUB, "engine": "sglang"}
CLAIM: Spec = {"persistentVolumeClaim": "kv"}
TARGET: Spec = {"target": {"url": "http://server:8000"}}
SHC, PDC, MTB = "SharedCache", "PDCluster", "MultiTurnBenchmark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """One rule is broken; a user is told of it by `field` and `message`."""

    kind: str
    spec: Spec
    field: str
    message: str
    """How it begins."""
    name: str = "demo"

    @property
    def manifest(self) -> Manifest:
        """As a user applies it."""
        return {
            "apiVersion": "kvloop.dev/v1alpha1",
            "kind": self.kind,
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": self.spec,
        }


def _cache(backend: str, part: Spec, field: str, message: str) -> Broken:
    spec = {"backend": backend, backend: part}
    return Broken(kind=SHC, spec=spec, field=f"spec.{backend}{field}", message=message)


def _mooncake(part: Spec, field: str, message: str) -> Broken:
    return _cache("mooncake", {"stores": {}, **part}, field, message)


def _nixl(part: Spec, field: str, message: str) -> Broken:
    return _cache("nixl", part, field, message)


def _cluster(spec: Spec, field: str, message: str) -> Broken:
    return Broken(kind=PDC, spec={**DEMO, **spec}, field=field, message=message)


def _sglang(spec: Spec, field: str, message: str) -> Broken:
    return Broken(kind=PDC, spec={**SGLANG, **spec}, field=field, message=message)


def _benchmark(spec: Spec, field: str, message: str) -> Broken:
    return Broken(kind=MTB, spec={**TARGET, **spec}, field=field, message=message)


def _lacks(backend: str) -> Broken:
    message = f"{backend} belongs to backend {backend}, and is needed there"
    return Broken(kind=SHC, spec={"backend": backend}, field=f"spec.{backend}", message=message)


_NAMES = tuple(
    Broken(
        kind=kind,
        spec=spec,
        name="a" * 37,
        field="metadata.name",
        message="metadata.name must be 36 small letters",
    )
    for kind, spec in (
        (SHC, {"backend": "file", "file": {"volume": CLAIM}}),
        (PDC, DEMO),
        (MTB, TARGET),
    )
)
_LACKING = tuple(
    _lacks(name) for name in ("mooncake", "hf3fs", "file", "nixl", "aibrix", "dynamic", "zones")
)
_RDMA: Spec = {"resourceName": "rdma/hca"}
_SMALL: Spec = {"volume": CLAIM, "capacity": "500"}
_CAPACITY = "capacity must be 64Mi or more"
_SEGMENT = "segmentSize must be 16Mi or more"
_LIMIT = "the memory limit must be 256Mi above segmentSize"
_TIGHT: Spec = {"segmentSize": "4Gi", "resources": {"limits": {"memory": "4Gi"}}}
_TWO: Spec = {"name": "b"}

BROKEN: tuple[Broken, ...] = (
    *_NAMES,
    *_LACKING,
    Broken(
        kind=SHC,
        spec={
            "backend": "zones",
            "zones": {"zone": "z", "local": {"name": "demo"}, "central": _TWO},
        },
        field="spec.zones",
        message="local and central must be other SharedCaches",
    ),
    _cache(
        "zones",
        {"zone": "z", "local": _TWO, "central": _TWO},
        ".central.name",
        "local and central must be two SharedCaches",
    ),
    _mooncake({"external": "a:1"}, ".stores", "set either stores"),
    _cache(
        "mooncake",
        {"external": "a:1", "tenant": "a", "tenantQuotas": {"a": "8Gi"}},
        ".tenantQuotas",
        "quotas are kept by masters that are run here",
    ),
    _mooncake({"rdma": _RDMA}, ".rdma", "rdma is of no use with protocol tcp"),
    _mooncake({"protocol": "rdma"}, ".rdma", "protocol rdma needs devices"),
    _mooncake({"tenantQuotas": {"a": "8Gi"}}, ".tenant", "with tenantQuotas only named tenants"),
    _mooncake(
        {"masters": {"replicas": 3}},
        ".masters.replicas",
        "masters without highAvailability know nothing of each other",
    ),
    _mooncake(
        {"masters": {"highAvailability": "etcd"}},
        ".masters.etcdEndpoints",
        "etcdEndpoints belongs to highAvailability etcd",
    ),
    _mooncake(
        {"masters": {"port": 9003}}, ".masters.metricsPort", "port and metricsPort must differ"
    ),
    _mooncake(
        {"masters": {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}}},
        ".masters.resources.requests",
        "no request may be above the limit",
    ),
    _mooncake(
        {"stores": {"workload": "DaemonSet", "ssd": {"size": "1Ti"}}},
        ".stores.ssd.size",
        "a DaemonSet's pods have no claims",
    ),
    _mooncake({"stores": {"ssd": {}}}, ".stores.ssd", "set exactly one of hostPath and size"),
    _mooncake({"stores": {"segmentSize": 4}}, ".stores.segmentSize", _SEGMENT),
    _mooncake({"stores": _TIGHT}, ".stores.resources.limits.memory", _LIMIT),
    _mooncake(
        {"protocol": "rdma", "rdma": {"devices": ["mlx5_0"]}},
        ".rdma.resourceName",
        "pods see no RDMA device",
    ),
    _cache("hf3fs", {}, ".volume", "set exactly one of volume (3FS is mounted) and fuse"),
    _cache("hf3fs", _SMALL, ".capacity", _CAPACITY),
    _cache(
        "file",
        {"volume": {}},
        ".volume",
        "set exactly one of persistentVolumeClaim and hostPath",
    ),
    _cache("file", _SMALL, ".capacity", _CAPACITY),
    _nixl({"plugin": "POSIX"}, ".volume", "plugins of files"),
    _nixl(
        {"plugin": "POSIX", "volume": CLAIM, "bucket": "pages"},
        ".bucket",
        "bucket belongs to plugin OBJ",
    ),
    _nixl({"plugin": "UCX"}, ".server", "plugin UCX needs exactly one of server"),
    _nixl(
        {"plugin": "POSIX", "volume": CLAIM, "server": "a:1"},
        ".server",
        "server and store belong to plugin UCX",
    ),
    _nixl({"plugin": "OBJ", "bucket": "pages"}, ".endpoint", "plugin OBJ needs endpoint"),
    _nixl(
        {"plugin": "UCX", "server": "a:1", "capacity": "1Gi"}, ".capacity", "capacity bounds files"
    ),
    _nixl({"plugin": "POSIX", **_SMALL}, ".capacity", _CAPACITY),
    _nixl({"plugin": "UCX", "store": {"segmentSize": "4"}}, ".store.segmentSize", _SEGMENT),
    _nixl({"plugin": "UCX", "store": _TIGHT}, ".store.resources.limits.memory", _LIMIT),
    _cluster(
        {"sharedCacheRef": {"name": "a"}, "attachableCaches": [_TWO]},
        "spec.sharedCacheRef.name",
        "sharedCacheRef must be one of attachableCaches",
    ),
    _cluster(
        {"attachableCaches": [_TWO, _TWO]}, "spec.attachableCaches", "name each of attachableCaches"
    ),
    _cluster({"engine": "sglang"}, "spec.model.demo", "the demo model runs on engine kvloop only"),
    _cluster({"sglang": {}}, "spec.sglang", "sglang belongs to engine sglang"),
    _cluster(
        {"decode": {"tensorParallelSize": 2, "gpus": 2}},
        "spec.prefill.tensorParallelSize",
        "tensorParallelSize above 1 needs engine sglang",
    ),
    _cluster(
        {"transferProtocol": "rdma", "prefill": {"rdma": _RDMA}},
        "spec.transferProtocol",
        "rdma needs devices on both ends",
    ),
    _cluster(
        {"prefill": {"maxTotalTokens": 100}},
        "spec.prefill.maxTotalTokens",
        "maxTotalTokens must hold two pages",
    ),
    _cluster(
        {"decode": {"maxTotalTokens": 100}},
        "spec.decode.maxTotalTokens",
        "maxTotalTokens must hold two pages",
    ),
    _cluster(
        {"hicache": {"sizeGb": 64}, "prefill": {"resources": {"limits": {"memory": "32Gi"}}}},
        "spec.hicache.sizeGb",
        "hicache.sizeGb does not fit into prefill.resources.limits.memory",
    ),
    _cluster(
        {"offload": {"sizeGb": 4}, "decode": {"resources": {"limits": {"memory": "2Gi"}}}},
        "spec.offload.sizeGb",
        "offload.sizeGb does not fit into decode.resources.limits.memory",
    ),
    _cluster(
        {"model": {"claim": {"claim": "m"}, "demo": "smollm2"}},
        "spec.model",
        "set exactly one of demo, huggingFace, claim and image",
    ),
    _cluster(
        {"prefill": {"extraArgs": ["--page-size=32"]}},
        "spec.prefill.extraArgs",
        "extraArgs must not set what fields",
    ),
    _cluster(
        {"router": {"extraArgs": ["--port", "1"]}},
        "spec.router.extraArgs",
        "extraArgs must not set what fields",
    ),
    _sglang(
        {"prefill": {"tensorParallelSize": 8, "gpus": 4}},
        "spec.prefill.gpus",
        "tensorParallelSize needs a GPU for each part",
    ),
    _cluster(
        {"offload": {"enabled": False, "tailObjects": True}},
        "spec.offload.tailObjects",
        "tailObjects are offloaded",
    ),
    _cluster({"autoscaling": {}}, "spec.autoscaling", "set prefill, decode, or both"),
    _cluster(
        {"autoscaling": {"keepRatio": True, "decode": {"maxReplicas": 4}}},
        "spec.autoscaling.keepRatio",
        "keepRatio moves nodes",
    ),
    _cluster(
        {"autoscaling": {"decode": {"minReplicas": 5, "maxReplicas": 4}}},
        "spec.autoscaling.decode.minReplicas",
        "minReplicas must not be above maxReplicas",
    ),
    _cluster(
        {"rollout": {"maxSurge": 0}},
        "spec.rollout.maxSurge",
        "maxSurge and maxUnavailable cannot both be 0",
    ),
    _sglang({"image": {"reference": "a"}}, "spec.image.reference", "image.reference is of engine"),
    _sglang({"hicache": {"codec": "fp8"}}, "spec.hicache.codec", "engine sglang has no codec"),
    _sglang(
        {"hicache": {"tenantQuotas": {"a": 1}}},
        "spec.hicache.tenantQuotas",
        "engine sglang has no tenants",
    ),
    _sglang({"offload": {"policy": "all"}}, "spec.offload", "engine sglang has one way"),
    _sglang({"prefill": {"threads": 1}}, "spec.prefill.threads", "engine sglang chooses"),
    _sglang(
        {"router": {"apiKeysSecret": {"name": "a", "key": "b"}}},
        "spec.router.apiKeysSecret",
        "SGLang's router knows no tenants",
    ),
    _sglang({"zone": "a"}, "spec.zone", "engine sglang knows no zones"),
    _sglang(
        {"autoscaling": {"decode": {"maxReplicas": 4}}},
        "spec.autoscaling",
        "autoscaling reads metrics of engine kvloop",
    ),
    _benchmark({"arms": ["on", "on"]}, "spec.arms", "name each arm once"),
    _benchmark({"target": {}}, "spec.target", "set exactly one of clusterRef and url"),
    _benchmark(
        {"workload": {"kind": "trace"}}, "spec.workload.file", "file belongs to kinds trace"
    ),
    _benchmark(
        {"workload": {"flags": {"json": "a"}}}, "spec.workload.flags", "model, api-key, seed, arms"
    ),
    _benchmark(
        {"workload": {"flags": {"--turns": "3"}}},
        "spec.workload.flags",
        "flags are named without dashes",
    ),
    _benchmark(
        {"workload": {"kind": "trace", "file": {"path": "a"}}},
        "spec.workload.file",
        "set exactly one of configMap and volume",
    ),
)

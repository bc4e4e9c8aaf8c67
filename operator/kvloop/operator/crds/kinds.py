"""What `kubectl` is told of each kind beside its schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from kvloop.operator.types.base import Model
from kvloop.operator.types.benchmark import (
    MultiTurnBenchmark,
    MultiTurnBenchmarkSpec,
    MultiTurnBenchmarkStatus,
)
from kvloop.operator.types.cluster_status import PDClusterStatus
from kvloop.operator.types.pd_cluster import PDCluster, PDClusterSpec
from kvloop.operator.types.shared_cache import SharedCache, SharedCacheSpec, SharedCacheStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Of `kubectl get`; `wide`: only with -o wide."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of resource."""

    resource: type[Model]
    spec: type[Model]
    status: type[BaseModel]
    plural: str
    short: str
    columns: tuple[Column, ...]
    scale: dict[str, Any] | None = None
    """The scale subresource."""

    @property
    def name(self) -> str:
        """As in `kind:`."""
        return self.resource.__name__


def _condition(name: str, part: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].{part}'


_AGE = Column(name="Age", path=".metadata.creationTimestamp", type="date")
_READY = (
    Column(name="Ready", path=_condition("Ready", "status")),
    Column(name="Reason", path=_condition("Ready", "reason")),
)
_MESSAGE = Column(name="Message", path=_condition("Ready", "message"), wide=True)

SHARED_CACHE = Kind(
    resource=SharedCache,
    spec=SharedCacheSpec,
    status=SharedCacheStatus,
    plural="sharedcaches",
    short="shc",
    columns=(
        Column(name="Backend", path=".spec.backend"),
        *_READY,
        Column(name="Used", path=".status.used"),
        Column(name="Capacity", path=".status.capacity"),
        Column(name="Endpoint", path=".status.endpoint", wide=True),
        _MESSAGE,
        _AGE,
    ),
    scale={
        "specReplicasPath": ".spec.mooncake.stores.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
)
PD_CLUSTER = Kind(
    resource=PDCluster,
    spec=PDClusterSpec,
    status=PDClusterStatus,
    plural="pdclusters",
    short="pdc",
    columns=(
        *_READY,
        Column(name="Reuse", path=".status.reuse"),
        Column(name="Hit", path=".status.hit"),
        Column(name="Prefill", path=".status.prefill.ready", type="integer"),
        Column(name="Decode", path=".status.decode.ready", type="integer"),
        Column(name="Cache", path=".status.attachedCache", wide=True),
        Column(name="Endpoint", path=".status.endpoint", wide=True),
        _MESSAGE,
        _AGE,
    ),
    scale={
        "specReplicasPath": ".spec.decode.replicas",
        "statusReplicasPath": ".status.decode.replicas",
        "labelSelectorPath": ".status.decode.selector",
    },
)
BENCHMARK = Kind(
    resource=MultiTurnBenchmark,
    spec=MultiTurnBenchmarkSpec,
    status=MultiTurnBenchmarkStatus,
    plural="multiturnbenchmarks",
    short="mtb",
    columns=(
        Column(name="Phase", path=".status.phase"),
        Column(name="Reason", path=".status.reason"),
        Column(name="TTFT", path=".status.ttftWithReuse"),
        Column(name="TTFT (no reuse)", path=".status.ttftWithoutReuse"),
        Column(name="Speedup", path=".status.speedup"),
        Column(name="Hit", path=".status.hit"),
        Column(name="Message", path=".status.message", wide=True),
        _AGE,
    ),
)
KINDS = (SHARED_CACHE, PD_CLUSTER, BENCHMARK)

"""Stores of memory that the operator runs: their size, and Mooncake's masters and stores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kvloop.operator.quantity import num_bytes
from kvloop.operator.types import patterns
from kvloop.operator.types.base import FreeForm, Model, Port, Quantity, Rule
from kvloop.operator.types.pods import PodSettings, Rdma

SMALLEST_SEGMENT = 16 << 20
LEAST_HEADROOM = 256 << 20
"""Memory of a store beside its segment."""
SEGMENT_RULES = (
    Rule(
        cel=None,
        check=lambda s: num_bytes(s.segment_size) >= SMALLEST_SEGMENT,
        message="segmentSize must be 16Mi or more; a number without a unit is bytes",
        field="segmentSize",
    ),
    Rule(
        cel=None,
        check=lambda s: (
            "memory" not in s.resources.limits
            or num_bytes(s.resources.limits["memory"]) >= num_bytes(s.segment_size) + LEAST_HEADROOM
        ),
        message="the memory limit must be 256Mi above segmentSize at least: "
        "raise it, or leave it out",
        field="resources.limits.memory",
    ),
)


class MooncakeMasters(PodSettings):
    """The masters, which keep the names of pages."""

    RULES = (
        Rule(
            cel="self.replicas == 1 || self.highAvailability != 'none'",
            check=lambda m: m.replicas == 1 or m.high_availability != "none",
            message="masters without highAvailability know nothing of each other: "
            "set replicas to 1, or highAvailability to lease or etcd",
            field="replicas",
        ),
        Rule(
            cel="(self.highAvailability == 'etcd') == (size(self.etcdEndpoints) > 0)",
            check=lambda m: (m.high_availability == "etcd") == bool(m.etcd_endpoints),
            message="etcdEndpoints belongs to highAvailability etcd, and is needed there",
            field="etcdEndpoints",
        ),
        Rule(
            cel="self.port != self.metricsPort",
            check=lambda m: m.port != m.metrics_port,
            message="port and metricsPort must differ",
            field="metricsPort",
        ),
    )
    replicas: int = Field(default=1, description="Masters; one of them leads.", ge=1, le=9)
    high_availability: Literal["none", "lease", "etcd"] = Field(
        default="none",
        description="How a leader is found. lease: by a Kubernetes Lease; the next leader begins "
        "with an empty store. etcd: by an etcd that keeps the names too.",
    )
    etcd_endpoints: list[Annotated[str, Field(pattern=patterns.HOST_PORT)]] = Field(
        default=[], description="host:port of an etcd that is there, for etcd.", max_length=9
    )
    lease_seconds: int = Field(
        default=15,
        description="For lease: another leads so long after the last sign of a leader, which stops "
        "itself after two thirds of it. Longer bears longer outages of the API server.",
        ge=6,
        le=600,
    )
    port: Port = Field(default=50051, description="Port of the RPC.")
    metrics_port: Port = Field(default=9003, description="Port of the metrics.")
    flags: dict[str, str] = Field(
        default={}, description="Further flags of mooncake_master, such as eviction_ratio."
    )


class MooncakeSsd(Model):
    """Where pages go when memory is short."""

    RULES = (
        Rule(
            cel="has(self.hostPath) != has(self.size)",
            check=lambda s: (s.host_path is None) != (s.size is None),
            message="set exactly one of hostPath and size",
            field="",
        ),
    )
    host_path: str | None = Field(
        default=None,
        description="Directory on the nodes. Needs the privileged level.",
        pattern=patterns.ABSOLUTE_PATH,
    )
    size: Quantity | None = Field(default=None, description="Of a claim for each store.")
    storage_class_name: str | None = Field(default=None, description="Of that claim.")


class MooncakeStores(PodSettings):
    """The stores, which keep the bytes of pages in their memory."""

    RULES = (
        Rule(
            cel="self.workload == 'StatefulSet' || !has(self.ssd) || !has(self.ssd.size)",
            check=lambda s: s.workload == "StatefulSet" or s.ssd is None or s.ssd.size is None,
            message="a DaemonSet's pods have no claims of their own: "
            "set ssd.hostPath, or workload to StatefulSet",
            field="ssd.size",
        ),
        *SEGMENT_RULES,
    )
    workload: Literal["StatefulSet", "DaemonSet"] = Field(
        default="StatefulSet", description="DaemonSet: one on each node that nodeSelector chooses."
    )
    replicas: int = Field(default=1, description="Stores of a StatefulSet.", ge=0, le=1000)
    segment_size: Quantity = Field(
        default="4Gi", description="Memory that each gives; its pod's memory limit must be above."
    )
    ssd: MooncakeSsd | None = Field(
        default=None, description="Pages that memory has no room for go here."
    )


class Mooncake(Model):
    """Masters and stores of a Mooncake store, run by the operator, or one that is there."""

    RULES = (
        Rule(
            cel="has(self.external) != has(self.stores)",
            check=lambda m: (m.external is None) != (m.stores is None),
            message="set either stores, for a store that is run here, "
            "or external, for one that is there",
            field="stores",
        ),
        Rule(
            cel="!has(self.external) || size(self.tenantQuotas) == 0",
            check=lambda m: m.external is None or not m.tenant_quotas,
            message="quotas are kept by masters that are run here: set them at the external store",
            field="tenantQuotas",
        ),
        Rule(
            cel="self.protocol != 'tcp' || !has(self.rdma)",
            check=lambda m: m.protocol != "tcp" or m.rdma is None,
            message="rdma is of no use with protocol tcp: set protocol to rdma, or remove rdma",
            field="rdma",
        ),
        Rule(
            cel="self.protocol != 'rdma' || has(self.rdma)",
            check=lambda m: m.protocol != "rdma" or m.rdma is not None,
            message="protocol rdma needs devices: set rdma, or protocol to tcp",
            field="rdma",
        ),
        Rule(
            cel="size(self.tenantQuotas) == 0 || "
            "(has(self.tenant) && self.tenant in self.tenantQuotas)",
            check=lambda m: not m.tenant_quotas or m.tenant in m.tenant_quotas,
            message="with tenantQuotas only named tenants store anything: "
            "set tenant to one of them",
            field="tenant",
        ),
    )
    external: str | None = Field(
        default=None,
        description="A store that is there: host:port of its masters, several with commas, or "
        "etcd://host:port; nothing is run here then.",
        pattern=patterns.MASTERS,
    )
    masters: MooncakeMasters = Field(default=MooncakeMasters(), description="The masters.")
    stores: MooncakeStores | None = Field(default=None, description="The stores.")
    protocol: Literal["tcp", "rdma"] = Field(default="tcp", description="How pages move.")
    rdma: Rdma | None = Field(default=None, description="Devices, for protocol rdma.")
    replicas: int = Field(default=1, description="Copies of each page.", ge=1, le=8)
    tenant: str | None = Field(
        default=None, description="Mooncake's tenant that pages count on.", min_length=1
    )
    tenant_quotas: dict[str, Quantity] = Field(
        default={}, description="Memory by Mooncake's tenant; tenants not named store nothing."
    )
    soft_pin: bool = Field(default=False, description="Pages are evicted last for a while.")
    extra_config: FreeForm = Field(
        default={}, description="Further fields of the backend's configuration."
    )

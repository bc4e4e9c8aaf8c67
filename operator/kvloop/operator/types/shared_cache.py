"""`SharedCache` (shc): the storage that nodes share, L3 of their HiCache."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kvloop.operator.quantity import num_bytes
from kvloop.operator.types.base import (
    Condition,
    FreeForm,
    KeyReference,
    LocalReference,
    Metadata,
    Model,
    Name,
    Port,
    Quantity,
    Rule,
    Status,
)
from kvloop.operator.types.pods import Image, PodSettings, Rdma, Volume

Backend = Literal["mooncake", "hf3fs", "file", "nixl", "aibrix", "dynamic", "zones"]
SMALLEST_SEGMENT = 16 << 20
LEAST_HEADROOM = 256 << 20
"""Memory of a store beside its segment."""
BACKENDS: tuple[Backend, ...] = ("mooncake", "hf3fs", "file", "nixl", "aibrix", "dynamic", "zones")


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
    )
    replicas: int = Field(default=1, description="Masters; one of them leads.", ge=1, le=9)
    high_availability: Literal["none", "lease", "etcd"] = Field(
        default="none",
        description="How a leader is found. lease: by a Kubernetes Lease; the next leader begins "
        "with an empty store. etcd: by an etcd that keeps the names too.",
    )
    etcd_endpoints: list[str] = Field(
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
        pattern=r"^/[^\x00]*$",
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
        Rule(
            cel=None,
            check=lambda s: num_bytes(s.segment_size) >= SMALLEST_SEGMENT,
            message="segmentSize must be 16Mi or more",
            field="segmentSize",
        ),
        Rule(
            cel=None,
            check=lambda s: (
                "memory" not in s.resources.limits
                or num_bytes(s.resources.limits["memory"])
                >= num_bytes(s.segment_size) + LEAST_HEADROOM
            ),
            message="the memory limit must be 256Mi above segmentSize at least: "
            "raise it, or leave it out",
            field="resources.limits.memory",
        ),
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
            cel="has(self.external) || has(self.stores)",
            check=lambda m: m.external is not None or m.stores is not None,
            message="set stores for a store that is run here, or external for one that is there",
            field="stores",
        ),
        Rule(
            cel="self.protocol != 'tcp' || !has(self.rdma)",
            check=lambda m: m.protocol != "tcp" or m.rdma is None,
            message="rdma is of no use with protocol tcp: set protocol to rdma, or remove rdma",
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
        description="host:port of a master that is there; masters and stores are not run then.",
        min_length=1,
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


class ThreeFsFuse(Model):
    """The FUSE daemon of an existing 3FS operator, injected into pods by their labels."""

    pod_labels: dict[str, str] = Field(
        description="Labels that make that operator add its side-car.", min_length=1
    )
    pod_annotations: dict[str, str] = Field(default={}, description="And annotations.")


class ThreeFs(Model):
    """An existing 3FS."""

    RULES = (
        Rule(
            cel="has(self.volume) != has(self.fuse)",
            check=lambda t: (t.volume is None) != (t.fuse is None),
            message="set exactly one of volume (3FS is mounted) and fuse (a side-car mounts it)",
            field="volume",
        ),
    )
    volume: Volume | None = Field(default=None, description="Where 3FS is mounted already.")
    fuse: ThreeFsFuse | None = Field(default=None, description="A side-car that mounts it.")
    mount_path: str = Field(
        default="/3fs", description="Where it is mounted in the pods.", pattern=r"^/[^\x00]+$"
    )
    directory: str = Field(
        default="kvloop",
        description="The store's directory under it.",
        pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$",
    )
    io: Literal["auto", "usrbio", "posix"] = Field(
        default="auto", description="USRBIO by 3FS's library, or POSIX calls."
    )
    shared_memory: Quantity | None = Field(
        default=None,
        description="A /dev/shm of this size of the pods' own. Unset: with fuse the one that the "
        "side-car shares, with volume the machine's, as 3FS's daemon opens USRBIO's rings there.",
    )
    capacity: Quantity | None = Field(
        default=None, description="A janitor keeps the pages below this; unset: 3FS's own quotas."
    )
    janitor_schedule: str = Field(
        default="*/10 * * * *",
        description="When the janitor runs, as cron writes it.",
        min_length=9,
    )
    extra_config: FreeForm = Field(
        default={}, description="Further fields of the backend's configuration."
    )


class FileStore(Model):
    """A directory that all nodes mount."""

    volume: Volume = Field(description="A claim that many nodes may write (RWX), or a host path.")
    directory: str = Field(
        default="kvloop",
        description="The store's directory in it.",
        pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$",
    )
    capacity: Quantity | None = Field(
        default=None, description="Bytes of all pages; unset: no bound."
    )
    extra_config: FreeForm = Field(
        default={}, description="Further fields of the backend's configuration."
    )


class NixlStores(PodSettings):
    """Memory servers of kvloop's own, for plugin UCX."""

    segment_size: Quantity = Field(default="4Gi", description="Memory that the server gives.")
    port: Port = Field(default=50061, description="Where nodes ask for places.")


class Nixl(Model):
    """NVIDIA's NIXL and one of its plugins."""

    RULES = (
        Rule(
            cel="(self.plugin in ['POSIX', 'GDS', 'GDS_MT', 'HF3FS']) == has(self.volume)",
            check=lambda n: (
                (n.plugin in ("POSIX", "GDS", "GDS_MT", "HF3FS")) == (n.volume is not None)
            ),
            message="plugins of files (POSIX, GDS, GDS_MT, HF3FS) need volume, others have none",
            field="volume",
        ),
        Rule(
            cel="(self.plugin == 'OBJ') == has(self.bucket)",
            check=lambda n: (n.plugin == "OBJ") == (n.bucket is not None),
            message="bucket belongs to plugin OBJ, and is needed there",
            field="bucket",
        ),
        Rule(
            cel="self.plugin != 'UCX' || (has(self.server) != has(self.store))",
            check=lambda n: n.plugin != "UCX" or ((n.server is None) != (n.store is None)),
            message="plugin UCX needs exactly one of server (there already) and store (run here)",
            field="server",
        ),
        Rule(
            cel="self.plugin == 'UCX' || (!has(self.server) && !has(self.store))",
            check=lambda n: n.plugin == "UCX" or (n.server is None and n.store is None),
            message="server and store belong to plugin UCX: remove them",
            field="server",
        ),
        Rule(
            cel="self.plugin != 'OBJ' || (has(self.endpoint) && has(self.credentials))",
            check=lambda n: n.plugin != "OBJ" or None not in (n.endpoint, n.credentials),
            message="plugin OBJ needs endpoint and credentials",
            field="endpoint",
        ),
    )
    plugin: Literal["POSIX", "GDS", "GDS_MT", "HF3FS", "OBJ", "UCX"] = Field(
        description="Where pages go: files, objects of a bucket, memory of a server."
    )
    volume: Volume | None = Field(default=None, description="Of the file plugins.")
    capacity: Quantity | None = Field(default=None, description="Of the file plugins.")
    bucket: str | None = Field(default=None, description="Of OBJ.", min_length=3, max_length=63)
    endpoint: str | None = Field(
        default=None, description="http(s)://host:port of OBJ.", pattern=r"^https?://"
    )
    credentials: LocalReference | None = Field(
        default=None, description="Secret with access_key and secret_key, of OBJ."
    )
    server: str | None = Field(default=None, description="host:port of a memory server, of UCX.")
    store: NixlStores | None = Field(default=None, description="A memory server run here, of UCX.")
    extra_config: FreeForm = Field(
        default={}, description="Further fields of the backend's configuration."
    )


class AiBrix(Model):
    """AIBrix's KV cache library."""

    l2_cache_backend: Literal["SHFS", "ROCKSDB"] = Field(
        default="SHFS", description="Files that nodes share, or a database of one process."
    )
    volume: Volume = Field(description="Where they lie.")
    extra_config: FreeForm = Field(
        default={}, description="Further fields of the backend's configuration."
    )


class Dynamic(Model):
    """A storage class of your own, in the node's image."""

    module_path: str = Field(description="Module, as import knows it.", min_length=1)
    class_name: str = Field(description="A class of it.", min_length=1)
    interface_v1: bool = Field(default=False, description="SGLang's batch v1 methods move pages.")
    extra_config: FreeForm = Field(default={}, description="What the class is given.")
    config_secret: KeyReference | None = Field(
        default=None, description="JSON with further fields that must not be seen."
    )
    volume: Volume | None = Field(default=None, description="Mounted at /var/lib/kvloop/cache.")


class Zones(Model):
    """An edge site's own store before a central one."""

    RULES = (
        Rule(
            cel="self.local.name != self.central.name",
            check=lambda z: z.local.name != z.central.name,
            message="local and central must be two SharedCaches",
            field="central.name",
        ),
    )
    zone: Name = Field(description="The site's name.")
    local: LocalReference = Field(description="SharedCache of the site.")
    central: LocalReference = Field(description="SharedCache across the link.")
    extra_config: FreeForm = Field(
        default={}, description="Further fields of the backend's configuration."
    )


def _belongs(name: Backend) -> Rule:
    return Rule(
        cel=f"(self.backend == '{name}') == has(self.{name})",
        check=lambda spec: (spec.backend == name) == (getattr(spec, name) is not None),
        message=f"{name} belongs to backend {name}, and is needed there",
        field=name,
    )


class SharedCacheSpec(Model):
    """Exactly the part that `backend` names is set."""

    RULES = (
        *(_belongs(name) for name in BACKENDS),
        Rule(
            cel="self.backend == oldSelf.backend",
            check=lambda s: True,  # of a change; the operator sees one state only
            message="backend cannot be changed: create another SharedCache and move sharedCacheRef",
            field="backend",
        ),
    )
    backend: Backend = Field(description="Which storage.")
    image: Image = Field(default=Image(), description="Of the pods that the operator runs for it.")
    mooncake: Mooncake | None = Field(default=None, description="For backend mooncake.")
    hf3fs: ThreeFs | None = Field(default=None, description="For backend hf3fs.")
    file: FileStore | None = Field(default=None, description="For backend file.")
    nixl: Nixl | None = Field(default=None, description="For backend nixl.")
    aibrix: AiBrix | None = Field(default=None, description="For backend aibrix.")
    dynamic: Dynamic | None = Field(default=None, description="For backend dynamic.")
    zones: Zones | None = Field(default=None, description="For backend zones.")


class Member(Status):
    """A pod of the store."""

    name: str = Field(description="The pod.")
    role: str = Field(description="master, store or server.")
    ready: bool = Field(description="Whether it serves.")
    leader: bool = Field(default=False, description="Whether it leads.")
    node: str = Field(default="", description="The machine it is on.")
    restarts: int = Field(default=0, description="Of its containers.")


class SharedCacheStatus(Status):
    """What the operator sees of the store."""

    observed_generation: int = Field(default=0, description="Generation that this is about.")
    conditions: list[Condition] = Field(
        default=[],
        description="Ready, and why not.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    endpoint: str = Field(default="", description="Where nodes reach it.")
    capacity_bytes: int | None = Field(default=None, description="Unset: not known or no bound.")
    used_bytes: int | None = Field(default=None, description="Unset: not known.")
    capacity: str = Field(default="", description="For people.")
    used: str = Field(default="", description="For people.")
    replicas: int = Field(default=0, description="Stores that are there.")
    ready_replicas: int = Field(default=0, description="Stores that serve.")
    selector: str = Field(default="", description="Of the stores' pods.")
    members: list[Member] = Field(default=[], description="The pods.", max_length=1000)


class SharedCache(Model):
    """The resource."""

    metadata: Metadata
    spec: SharedCacheSpec

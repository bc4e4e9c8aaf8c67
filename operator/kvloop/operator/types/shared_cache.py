"""`SharedCache` (shc): the storage that nodes share, L3 of their HiCache."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kvloop.operator.quantity import num_bytes
from kvloop.operator.types import patterns
from kvloop.operator.types.base import (
    Condition,
    FreeForm,
    KeyReference,
    LocalReference,
    Model,
    Name,
    Port,
    Quantity,
    Resource,
    Rule,
    Status,
)
from kvloop.operator.types.mooncake import SEGMENT_RULES, Mooncake
from kvloop.operator.types.pods import Image, PodSettings, Volume

Backend = Literal["mooncake", "hf3fs", "file", "nixl", "aibrix", "dynamic", "zones"]
SMALLEST_CAPACITY = 64 << 20
BACKENDS: tuple[Backend, ...] = ("mooncake", "hf3fs", "file", "nixl", "aibrix", "dynamic", "zones")


CAPACITY_RULE = Rule(
    cel=None,
    check=lambda c: c.capacity is None or num_bytes(c.capacity) >= SMALLEST_CAPACITY,
    message="capacity must be 64Mi or more; a number without a unit is bytes",
    field="capacity",
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
        CAPACITY_RULE,
    )
    volume: Volume | None = Field(default=None, description="Where 3FS is mounted already.")
    fuse: ThreeFsFuse | None = Field(default=None, description="A side-car that mounts it.")
    mount_path: str = Field(
        default="/3fs",
        description="Where it is mounted in the pods.",
        pattern=patterns.ABSOLUTE_PATH,
    )
    directory: str = Field(
        default="kvloop",
        description="The store's directory under it.",
        pattern=patterns.RELATIVE_PATH,
    )
    io: Literal["auto", "usrbio", "posix"] = Field(
        default="auto",
        description="USRBIO by 3FS's library, or POSIX calls. auto: USRBIO where the image has the "
        "library; with a claim and no sharedMemory POSIX.",
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
        pattern=patterns.CRON,
    )
    extra_config: FreeForm = Field(
        default={}, description="Further fields of the backend's configuration."
    )


class FileStore(Model):
    """A directory that all nodes mount."""

    RULES = (CAPACITY_RULE,)
    volume: Volume = Field(description="A claim that many nodes may write (RWX), or a host path.")
    directory: str = Field(
        default="kvloop",
        description="The store's directory in it.",
        pattern=patterns.RELATIVE_PATH,
    )
    capacity: Quantity | None = Field(
        default=None, description="Bytes of all pages; unset: no bound."
    )
    extra_config: FreeForm = Field(
        default={}, description="Further fields of the backend's configuration."
    )


class NixlStores(PodSettings):
    """Memory servers of kvloop's own, for plugin UCX."""

    RULES = SEGMENT_RULES
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
        Rule(
            cel="!has(self.capacity) || has(self.volume)",
            check=lambda n: n.capacity is None or n.volume is not None,
            message="capacity bounds files: set volume, or remove capacity",
            field="capacity",
        ),
        CAPACITY_RULE,
    )
    plugin: Literal["POSIX", "GDS", "GDS_MT", "HF3FS", "OBJ", "UCX"] = Field(
        description="Where pages go: files, objects of a bucket, memory of a server."
    )
    volume: Volume | None = Field(default=None, description="Of the file plugins.")
    capacity: Quantity | None = Field(default=None, description="Of the file plugins.")
    bucket: str | None = Field(default=None, description="Of OBJ.", min_length=3, max_length=63)
    endpoint: str | None = Field(
        default=None, description="http(s)://host:port of OBJ.", pattern=patterns.URL
    )
    credentials: LocalReference | None = Field(
        default=None, description="Secret with access_key and secret_key, of OBJ."
    )
    server: str | None = Field(
        default=None,
        description="host:port of a memory server, of UCX.",
        pattern=patterns.HOST_PORT,
    )
    store: NixlStores | None = Field(default=None, description="A memory server run here, of UCX.")
    extra_config: FreeForm = Field(
        default={}, description="Further fields of the backend's configuration."
    )


class AiBrix(Model):
    """AIBrix's KV cache library."""

    l2_cache_backend: Literal["SHFS"] = Field(
        default="SHFS",
        description="SHFS: files that nodes share. AIBrix's others are of one process, or were "
        "never run with kvloop.",
    )
    volume: Volume = Field(description="Where they lie.")
    extra_config: FreeForm = Field(
        default={}, description="Further fields of the backend's configuration."
    )


class Dynamic(Model):
    """A storage class of your own, in the node's image."""

    module_path: str = Field(description="Module, as import knows it.", pattern=patterns.MODULE)
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


class SharedCache(Resource):
    """Storage that prefill and decode nodes share: L3 of their HiCache."""

    RULES = (
        *Resource.RULES,
        Rule(
            cel="!has(self.spec.zones) || (self.spec.zones.local.name != self.metadata.name && "
            "self.spec.zones.central.name != self.metadata.name)",
            check=lambda r: (
                r.spec.zones is None
                or r.metadata.name not in (r.spec.zones.local.name, r.spec.zones.central.name)
            ),
            message="local and central must be other SharedCaches than this one",
            field="spec.zones",
        ),
    )
    spec: SharedCacheSpec

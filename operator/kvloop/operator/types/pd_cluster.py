"""`PDCluster` (pdc): a router, prefill nodes and decode nodes of one model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kvloop.operator.types import patterns
from kvloop.operator.types.base import (
    KeyReference,
    LocalReference,
    Model,
    Name,
    Port,
    Quantity,
    Resource,
    Rule,
)
from kvloop.operator.types.chat_model import ChatModel
from kvloop.operator.types.cluster_rules import NODE_RULES, OWN_FLAGS_RULE, SPEC_RULES
from kvloop.operator.types.pods import Image, PodOverrides, PodSettings, Rdma
from kvloop.operator.types.sglang_rules import SGLANG_RULES

RoleName = Literal["prefill", "decode", "router"]
ROLES: tuple[RoleName, ...] = ("prefill", "decode", "router")


class HiCache(Model):
    """Names are HiCache's flags'."""

    page_size: Literal[1, 2, 4, 8, 16, 32, 64, 128, 256] = Field(
        default=64, description="Tokens of a page."
    )
    ratio: float = Field(default=2.0, description="Host pages for each device page.", gt=0, le=1000)
    size_gb: float | None = Field(
        default=None, description="Host memory of prefill in GB; unset: by ratio.", gt=0
    )
    write_policy: Literal["write_through", "write_through_selective", "write_back"] = Field(
        default="write_through", description="When prefill copies pages down."
    )
    io_backend: Literal["kernel", "direct"] = Field(
        default="kernel", description="Between device and host."
    )
    mem_layout: Literal["layer_first", "page_first", "page_first_direct"] = Field(
        default="page_first_direct", description="Order of a page in host memory."
    )
    codec: Literal["none", "int8", "fp8"] = Field(
        default="none", description="int8, fp8: half the bytes in L2 and L3, not exact."
    )
    prefetch_policy: Literal["best_effort", "wait_complete", "timeout"] = Field(
        default="best_effort", description="How long a prompt waits for its pages of L3."
    )
    eviction_policy: Literal["lru", "lfu", "slru", "priority"] = Field(
        default="lru", description="Who leaves first."
    )
    tenant_quotas: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default={}, description='Host pages by tenant; "*" is every other.'
    )


class Offload(Model):
    """What decode stores."""

    RULES = (
        Rule(
            cel="self.enabled || !self.tailObjects",
            check=lambda o: o.enabled or not o.tail_objects,
            message="tailObjects are offloaded: set enabled to true, or tailObjects to false",
            field="tailObjects",
        ),
    )
    enabled: bool = Field(default=True, description="Decode offloads what it writes.")
    policy: Literal["all", "answer", "selective"] = Field(
        default="answer", description="Which full pages."
    )
    back_pressure: Literal["delay", "drop_newest", "drop_oldest"] = Field(
        default="delay", description="What happens while the staging pool is full."
    )
    size_gb: float = Field(default=0.5, description="Host memory of the staging pool in GB.", gt=0)
    deadline_seconds: float = Field(
        default=10.0, description="So long after a request's end.", gt=0, le=600
    )
    tail_objects: bool = Field(default=False, description="The last partial page is stored too.")


class Objectives(Model):
    """Medians that autoscaling aims at."""

    ttft_milliseconds: int | None = Field(default=None, description="Of the first token.", ge=1)
    tpot_milliseconds: int | None = Field(default=None, description="Of each further one.", ge=1)
    queue_seconds: float | None = Field(
        default=None, description="Mean wait of a prompt before it is computed.", gt=0
    )


class RoleAutoscaling(Model):
    """Bounds of one role; the operator changes replicas between them."""

    RULES = (
        Rule(
            cel="self.minReplicas <= self.maxReplicas",
            check=lambda a: a.min_replicas <= a.max_replicas,
            message="minReplicas must not be above maxReplicas",
            field="minReplicas",
        ),
    )
    min_replicas: int = Field(default=1, description="Never fewer.", ge=1, le=1000)
    max_replicas: int = Field(description="Never more.", ge=1, le=1000)


class Autoscaling(Model):
    """Of the roles, from what the nodes' metrics tell."""

    RULES = (
        Rule(
            cel="has(self.prefill) || has(self.decode)",
            check=lambda a: a.prefill is not None or a.decode is not None,
            message="set prefill, decode, or both",
            field="",
        ),
        Rule(
            cel="!self.keepRatio || (has(self.prefill) && has(self.decode))",
            check=lambda a: not a.keep_ratio or (a.prefill is not None and a.decode is not None),
            message="keepRatio moves nodes from one role to the other: set prefill and decode",
            field="keepRatio",
        ),
    )
    prefill: RoleAutoscaling | None = Field(default=None, description="Bounds of prefill.")
    decode: RoleAutoscaling | None = Field(default=None, description="Bounds of decode.")
    objectives: Objectives = Field(default=Objectives(), description="What is aimed at.")
    keep_ratio: bool = Field(
        default=False,
        description="Also move nodes between roles' bounds so that neither queue is the longer: "
        "one role shrinks as the other grows.",
    )
    scale_down_seconds: int = Field(
        default=300, description="Quiet time before a node is taken away.", ge=0, le=86400
    )


class Role(PodSettings):
    """Pods of one role."""

    replicas: int = Field(
        default=1, description="Pods; kubectl scale and autoscaling win.", ge=0, le=1000
    )
    gpus: int = Field(default=0, description="nvidia.com/gpu of each pod.", ge=0, le=16)
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        description="Name of that resource.",
        pattern=patterns.EXTENDED_RESOURCE,
    )
    rdma: Rdma | None = Field(default=None, description="Devices that KV moves by.")
    finish_seconds: int = Field(
        default=60,
        description="How long a stopping pod goes on with the answers that it has begun.",
        ge=0,
        le=3600,
    )


class NodeRole(Role):
    """Prefill or decode."""

    RULES = (OWN_FLAGS_RULE, *NODE_RULES)
    max_total_tokens: int | None = Field(
        default=None, description="Tokens that the device's pool holds.", ge=16
    )
    max_running_requests: int | None = Field(default=None, description="At once.", ge=1)
    chunked_prefill_size: int | None = Field(
        default=None, description="Prompt tokens a step, at most.", ge=1
    )
    threads: int | None = Field(default=None, description="CPU threads.", ge=1)
    drain_seconds: int = Field(
        default=20, description="How long a stopping pod stores what it finished.", ge=0, le=3600
    )
    tensor_parallel_size: int = Field(
        default=1, description="Of engine sglang; kvloop's engine has 1.", ge=1, le=64
    )


class RouterRole(Role):
    """The router."""

    RULES = (OWN_FLAGS_RULE,)
    port: Port = Field(default=8000, description="Of its Service.")
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        default="ClusterIP", description="Of its Service."
    )
    api_keys_secret: KeyReference | None = Field(
        default=None, description="Keys of clients and their tenants; unset: no key is needed."
    )
    max_queued: int = Field(default=1024, description="Requests in flight.", ge=1)


class Canary(Model):
    """The two-turn chat that shows whether the loop is whole."""

    enabled: bool = Field(default=True, description="Without it the loop's conditions are Unknown.")
    interval_seconds: int = Field(default=60, description="Between two.", ge=5, le=86400)
    timeout_seconds: int = Field(default=60, description="Longest time of one.", ge=5, le=3600)


class Rollout(Model):
    """How new pods take the place of old ones, in each role."""

    RULES = (
        Rule(
            cel="self.maxSurge > 0 || self.maxUnavailable > 0",
            check=lambda r: r.max_surge > 0 or r.max_unavailable > 0,
            message="maxSurge and maxUnavailable cannot both be 0",
            field="maxSurge",
        ),
    )
    max_surge: int = Field(default=1, description="Pods above replicas.", ge=0, le=1000)
    max_unavailable: int = Field(
        default=0,
        description="Pods below replicas; with maxSurge 0 for machines without room.",
        ge=0,
        le=1000,
    )
    timeout_seconds: int = Field(
        default=1800, description="A role that got no further for so long is told as stuck.", ge=60
    )


class SGLang3FS(Model):
    """SGLang's own way of using 3FS: one file a rank, whose pages a server of SGLang's keeps."""

    metadata_server: str = Field(
        description="URL of sglang's mini_3fs_metadata_server, which runs already.",
        pattern=r"^https?://[^/]",
    )
    file_size: Quantity = Field(default="1Ti", description="Of the file of each rank.")
    jobs: int = Field(default=16, description="Threads that read and write.", ge=1, le=256)
    entries: int = Field(default=8, description="Pages that each takes at once.", ge=1, le=1024)


class SGLang(Model):
    """Of engine sglang only."""

    image: str = Field(
        default="lmsysorg/sglang:v0.5.23",
        description="Image of its nodes and router.",
        min_length=1,
    )
    transfer_backend: Literal["mooncake", "nixl"] = Field(
        default="mooncake", description="How KV moves between nodes."
    )
    bootstrap_port: Port = Field(default=8998, description="Of prefill's bootstrap server.")
    mem_fraction_static: float | None = Field(
        default=None, description="Share of GPU memory for weights and KV.", gt=0, lt=1
    )
    hf3fs: SGLang3FS | None = Field(
        default=None, description="Needed with a SharedCache of backend hf3fs."
    )


class PDClusterSpec(Model):
    """What runs."""

    RULES = (*SPEC_RULES, *SGLANG_RULES)
    engine: Literal["kvloop", "sglang"] = Field(default="kvloop", description="What computes.")
    image: Image = Field(default=Image(), description="Of engine kvloop's pods.")
    model: ChatModel = Field(description="The model.")
    prefill: NodeRole = Field(default=NodeRole(), description="Nodes that compute prompts.")
    decode: NodeRole = Field(default=NodeRole(), description="Nodes that generate.")
    router: RouterRole = Field(default=RouterRole(), description="Where clients call.")
    shared_cache_ref: LocalReference | None = Field(
        default=None, description="SharedCache in use; unset: nothing is shared."
    )
    attachable_caches: list[LocalReference] = Field(
        default=[],
        description="SharedCaches that sharedCacheRef may move to without a restart; "
        "empty: that of sharedCacheRef.",
        max_length=8,
    )
    hicache: HiCache = Field(default=HiCache(), description="Of prefill.")
    offload: Offload = Field(default=Offload(), description="Of decode.")
    release_tag: str = Field(
        default="",
        description="Added to the derived tag: a new one begins with an empty cache.",
        pattern=patterns.LABEL_VALUE,
        max_length=63,
    )
    zone: Name | None = Field(default=None, description="Told to nodes and router.")
    transfer_protocol: Literal["tcp", "rdma"] = Field(
        default="tcp", description="How KV moves between nodes."
    )
    canary: Canary = Field(default=Canary(), description="The loop watched.")
    autoscaling: Autoscaling | None = Field(default=None, description="Unset: none.")
    rollout: Rollout = Field(default=Rollout(), description="How pods are replaced.")
    admin_key_secret: KeyReference | None = Field(
        default=None, description="The nodes' admin key; unset: the operator makes one."
    )
    pod_template: PodOverrides = Field(
        default=PodOverrides(), description="Laid over the pods of all roles."
    )
    sglang: SGLang | None = Field(default=None, description="Of engine sglang.")


class PDCluster(Resource):
    """A router, prefill nodes and decode nodes of one model, and the cache that they share."""

    spec: PDClusterSpec

"""What the operator tells of a PDCluster."""

from __future__ import annotations

from pydantic import Field

from kvloop.operator.types.base import Condition, Status


class RoleStatus(Status):
    """Pods of a role."""

    replicas: int = Field(default=0, description="Wanted.")
    ready: int = Field(default=0, description="That serve.")
    updated: int = Field(default=0, description="Of the newest revision.")
    selector: str = Field(default="", description="Their labels.")


class LoopStatus(Status):
    """What the last canary found."""

    result: str = Field(default="", description="whole, broken or unknown.")
    broken_stage: str = Field(default="", description="transfer, write_back or reuse.")
    at: str = Field(default="", description="When.")
    reason: str = Field(default="", description="In words.")


class RoleScaling(Status):
    """What autoscaling remembers of a role; it goes on from here after the operator's restart."""

    wanted: int | None = Field(default=None, description="Replicas chosen last; unset: none yet.")
    reason: str = Field(default="", description="Why, in words.")
    quiet_since: int | None = Field(
        default=None, description="Unix time since when fewer nodes would do; unset: they do not."
    )
    most_needed: int = Field(default=0, description="Nodes needed at most since then.")
    short_with: int = Field(default=0, description="So many nodes were too few last time...")
    short_work: float = Field(default=0.0, description="...for so much work.")


class AutoscalingStatus(Status):
    """Of both roles."""

    prefill: RoleScaling = Field(default=RoleScaling(), description="Of prefill.")
    decode: RoleScaling = Field(default=RoleScaling(), description="Of decode.")
    looked_at: int | None = Field(
        default=None, description="Unix time of the last load that was seen, to the minute."
    )
    moved_at: int | None = Field(
        default=None, description="Unix time when a node was moved between the roles last."
    )


class PDClusterStatus(Status):
    """What the operator sees."""

    observed_generation: int = Field(default=0, description="Generation that this is about.")
    conditions: list[Condition] = Field(
        default=[],
        description="Ready, TransferVerified, WriteBackVerified, ReuseVerified, Progressing.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    prefill: RoleStatus = Field(default=RoleStatus(), description="Of prefill.")
    decode: RoleStatus = Field(default=RoleStatus(), description="Of decode.")
    router: RoleStatus = Field(default=RoleStatus(), description="Of the router.")
    release_tag: str = Field(
        default="", description="Derived; pages are shared between equal ones."
    )
    revision: str = Field(default="", description="Generation that new pods belong to.")
    attached_cache: str = Field(default="", description="SharedCache that all nodes have attached.")
    attached_at: str = Field(default="", description="Since when.")
    endpoint: str = Field(default="", description="Where clients call.")
    hit_rate: float | None = Field(
        default=None,
        description="Share of prompt tokens that were not computed, since the pods' start.",
    )
    hit: str = Field(default="", description="For people.")
    reuse: str = Field(default="", description="Status of ReuseVerified.")
    loop: LoopStatus = Field(default=LoopStatus(), description="The last canary.")
    autoscaling: AutoscalingStatus | None = Field(
        default=None, description="What autoscaling chose, and why; unset without it."
    )

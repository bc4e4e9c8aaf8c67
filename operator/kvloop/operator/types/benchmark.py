"""`MultiTurnBenchmark` (mtb): one run of `kvloop bench` against a cluster or any server."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from kvloop.operator.types import patterns
from kvloop.operator.types.base import (
    Condition,
    KeyReference,
    LocalReference,
    Model,
    Resource,
    Rule,
    Status,
)
from kvloop.operator.types.pods import Image, PodSettings, Volume

ArmName = Literal["on", "bypassed", "l3_only", "all_miss"]
OWN_FLAGS = (
    *("url", "model", "api-key", "seed", "arms", "rounds", "trace", "dataset"),
    *("json", "html", "no-samples", "termination-message", "config-map"),
)
"""Flags of `kvloop bench` that fields stand for, or that the operator sets."""
FLAG = re.compile("[a-z0-9]+(-[a-z0-9]+)*")
_OWN_IN_CEL = ", ".join(f"'{flag}'" for flag in OWN_FLAGS)


class Target(Model):
    """What is asked: exactly one of the two."""

    RULES = (
        Rule(
            cel="has(self.clusterRef) != has(self.url)",
            check=lambda t: (t.cluster_ref is None) != (t.url is None),
            message="set exactly one of clusterRef and url",
            field="",
        ),
    )
    cluster_ref: LocalReference | None = Field(
        default=None, description="A PDCluster of this namespace; the run begins once it is Ready."
    )
    url: str | None = Field(
        default=None, description="Any OpenAI-compatible server.", pattern=patterns.URL
    )
    api_key_secret: KeyReference | None = Field(default=None, description="Its key.")
    model: str | None = Field(default=None, description="Unset: the server's first.", min_length=1)


class Workload(Model):
    """What is sent; names are the flags of `kvloop bench KIND`."""

    RULES = (
        Rule(
            cel="(self.kind in ['trace', 'dataset']) == has(self.file)",
            check=lambda w: (w.kind in ("trace", "dataset")) == (w.file is not None),
            message="file belongs to kinds trace and dataset, and is needed there",
            field="file",
        ),
        Rule(
            cel=f"!self.flags.exists(f, f in [{_OWN_IN_CEL}])",
            check=lambda w: not set(w.flags) & set(OWN_FLAGS),
            message="model, api-key, seed, arms, rounds, trace and dataset have fields of their "
            "own, and the report goes to a ConfigMap: leave their flags out",
            field="flags",
        ),
        Rule(
            cel="self.flags.all(f, f.matches('^[a-z0-9]+(-[a-z0-9]+)*$'))",
            check=lambda w: all(FLAG.fullmatch(flag) for flag in w.flags),
            message="flags are named without dashes before them, such as request-length",
            field="flags",
        ),
    )
    kind: Literal["multi-turn", "long-doc", "agent", "trace", "dataset"] = Field(
        default="multi-turn", description="Which load."
    )
    flags: dict[str, str] = Field(
        default={},
        description="Flags of the command without the dashes, such as clients: '8', turns: '6'; "
        "an empty value is a switch.",
    )
    file: WorkloadFile | None = Field(default=None, description="Of kinds trace and dataset.")
    seed: int = Field(default=0, description="Equal seeds send equal loads.", ge=0)


class WorkloadFile(Model):
    """A file that pods mount: exactly one of the two sources."""

    RULES = (
        Rule(
            cel="has(self.configMap) != has(self.volume)",
            check=lambda f: (f.config_map is None) != (f.volume is None),
            message="set exactly one of configMap and volume",
            field="",
        ),
    )
    config_map: str | None = Field(default=None, description="Name of a ConfigMap.", min_length=1)
    volume: Volume | None = Field(default=None, description="A claim or a path.")
    path: str = Field(
        description="Key of the ConfigMap, or path in the volume.",
        pattern=patterns.RELATIVE_PATH,
    )


class MultiTurnBenchmarkSpec(PodSettings):
    """One run. A changed spec runs anew."""

    RULES = (
        Rule(
            cel="self.arms.all(a, self.arms.exists_one(b, b == a))",
            check=lambda s: len(set(s.arms)) == len(s.arms),
            message="name each arm once",
            field="arms",
        ),
    )
    target: Target = Field(description="What is asked.")
    workload: Workload = Field(default=Workload(), description="What is sent.")
    arms: list[ArmName] = Field(
        default=[],
        description="Ways of using the cache, in turns; empty: on and bypassed of kvloop, "
        "on and all_miss of another server.",
        max_length=4,
    )
    repeats: int | None = Field(
        default=None,
        description="How often the arms take turns, each time with their share of the "
        "conversations; unset: as fits.",
        ge=1,
        le=100,
    )
    image: Image = Field(default=Image(), description="Of the Job; unset: the node's image.")
    timeout_seconds: int = Field(default=3600, description="Longest time of the Job.", ge=10)
    ttl_seconds_after_finished: int | None = Field(
        default=86400,
        description="The Job goes after that; the resource and its ConfigMap stay.",
        ge=0,
    )
    delete_after_seconds: int | None = Field(
        default=None,
        description="The resource itself goes so long after its end; unset: never.",
        ge=0,
    )


class Latency(Status):
    """Milliseconds."""

    mean_ms: float | None = Field(default=None, description="Mean.")
    p50_ms: float | None = Field(default=None, description="Median.")
    p99_ms: float | None = Field(default=None, description="99th percentile.")


class ArmStatus(Status):
    """Of one arm."""

    arm: str = Field(description="on, bypassed, l3_only or all_miss.")
    completed: int = Field(default=0, description="Requests that were answered.")
    failed: int = Field(default=0, description="Requests that were not.")
    ttft: Latency = Field(default=Latency(), description="Of later turns.")
    hit_rate: float | None = Field(default=None, description="Of later turns' prompt tokens.")
    hit_rate_by_tier: dict[str, float] = Field(default={}, description="By tier.")
    requests_per_second: float | None = Field(default=None, description="Rate of requests.")
    output_tokens_per_second: float | None = Field(default=None, description="Rate of tokens.")


class MultiTurnBenchmarkStatus(Status):
    """What came of it."""

    observed_generation: int = Field(default=0, description="Generation that this is about.")
    phase: str = Field(
        default="",
        description="Pending, Running, Succeeded or Failed.",
    )
    reason: str = Field(default="", description="Why, in one word.")
    message: str = Field(default="", description="The first claim, or what failed.")
    conditions: list[Condition] = Field(
        default=[],
        description="Complete, Failed.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    job: str = Field(default="", description="The Job.")
    config_map: str = Field(default="", description="ConfigMap with report.json and report.html.")
    started_at: str = Field(default="", description="When the load began.")
    finished_at: str = Field(default="", description="When the Job ended.")
    duration_seconds: float | None = Field(default=None, description="Of the load.")
    arms: list[ArmStatus] = Field(default=[], description="Results by arm.", max_length=4)
    ttft_with_reuse: str = Field(default="", description="mean/p99 of arm on, for people.")
    ttft_without_reuse: str = Field(default="", description="mean/p99 of the control, for people.")
    speedup: str = Field(default="", description="Claim with its interval, for people.")
    hit: str = Field(default="", description="Hit rate of arm on, for people.")


class MultiTurnBenchmark(Resource):
    """One run of `kvloop bench` against a PDCluster or any OpenAI-compatible server."""

    spec: MultiTurnBenchmarkSpec


Workload.model_rebuild()

"""What every part that runs as pods lets its user set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from kvloop.operator.quantity import number
from kvloop.operator.types import patterns
from kvloop.operator.types.base import FreeForm, LocalReference, Model, Quantity, Rule


class Image(Model):
    """A container image."""

    reference: str | None = Field(
        default=None,
        description="Image with tag or digest; unset: the one the operator was installed with.",
        min_length=1,
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When the image is pulled."
    )
    pull_secrets: list[LocalReference] = Field(
        default=[], description="Secrets that open the registry.", max_length=16
    )


class Resources(Model):
    """As in a container."""

    RULES = (
        Rule(
            cel=None,
            check=lambda r: all(
                number(value) <= number(r.limits.get(name, value))
                for name, value in r.requests.items()
            ),
            message="no request may be above the limit of the same name",
            field="requests",
        ),
    )
    requests: dict[str, Quantity] = Field(default={}, description="What is reserved.")
    limits: dict[str, Quantity] = Field(default={}, description="What is not passed.")


class Rdma(Model):
    """RDMA for the pods of a part; nothing of it is granted unless asked for."""

    RULES = (
        Rule(
            cel="has(self.resourceName) || self.hostNetwork",
            check=lambda r: r.resource_name is not None or r.host_network,
            message="pods see no RDMA device: set resourceName to the device plug-in's resource, "
            "or hostNetwork to true",
            field="resourceName",
        ),
    )
    resource_name: str | None = Field(
        default=None,
        description="Extended resource of the device plug-in, such as rdma/hca_shared_devices_a.",
        pattern=patterns.EXTENDED_RESOURCE,
    )
    count: int = Field(default=1, description="How many of it a pod gets.", ge=1, le=64)
    devices: list[Annotated[str, Field(pattern=patterns.DEVICE)]] = Field(
        default=[], description="Devices to use, such as mlx5_0; empty: all.", max_length=64
    )
    host_network: bool = Field(
        default=False, description="Pods use the network of their node. Needs the privileged level."
    )
    ipc_lock: bool = Field(
        default=False,
        description="Adds the capability IPC_LOCK, for memory registration without a limit. Linux "
        "gives it to root alone: set securityContext.runAsUser of the container to 0 by "
        "podTemplate, too.",
    )


class PodOverrides(Model):
    """Laid over the pod template last: containers are merged by name, lists otherwise replaced."""

    metadata: FreeForm = Field(default={}, description="Labels and annotations of the pods.")
    spec: FreeForm = Field(default={}, description="Any fields of a pod's spec.")


class Scheduling(Model):
    """Where pods go."""

    node_selector: dict[str, str] = Field(default={}, description="Labels that a node must have.")
    tolerations: list[FreeForm] = Field(
        default=[], description="Taints that are tolerated.", max_length=64
    )
    affinity: FreeForm = Field(default={}, description="As in a pod.")
    priority_class_name: str | None = Field(default=None, description="Priority of the pods.")


class PodSettings(Scheduling):
    """Of the pods of one part."""

    resources: Resources = Field(default=Resources(), description="Of the main container.")
    env: list[FreeForm] = Field(
        default=[], description="Further environment variables, as in a container.", max_length=128
    )
    extra_args: list[str] = Field(
        default=[],
        description="Further flags, behind those that the operator sets.",
        max_length=128,
    )
    pod_template: PodOverrides = Field(
        default=PodOverrides(), description="Laid over the pod template."
    )


class Volume(Model):
    """A file system that pods mount: exactly one of the two."""

    RULES = (
        Rule(
            cel="has(self.persistentVolumeClaim) != has(self.hostPath)",
            check=lambda v: (v.persistent_volume_claim is None) != (v.host_path is None),
            message="set exactly one of persistentVolumeClaim and hostPath",
            field="",
        ),
    )
    persistent_volume_claim: str | None = Field(
        default=None, description="Name of a claim of this namespace.", min_length=1
    )
    host_path: str | None = Field(
        default=None,
        description="Absolute path on the nodes. Needs the privileged level.",
        pattern=patterns.ABSOLUTE_PATH,
    )


def as_kubernetes(model: Model) -> dict[str, Any]:
    """A model as an object of a manifest: camelCase, without what is unset or empty."""
    return model.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)

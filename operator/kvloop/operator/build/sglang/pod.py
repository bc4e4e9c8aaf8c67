"""The pods of engine sglang."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvloop.operator.build import pod
from kvloop.operator.build.pd_cluster.context import Context
from kvloop.operator.build.pd_cluster.model import ModelSource
from kvloop.operator.build.pd_cluster.pod import KEYS_ANNOTATION, admin_key_reference
from kvloop.operator.build.sglang.flags import settings_of
from kvloop.operator.types.pd_cluster import Role

_NOWHERE = ModelSource(flag="")


@dataclass(frozen=True, slots=True, kw_only=True)
class SGLangPod:
    """What tells one role's pods from another's."""

    role: str
    settings: Role
    module: str
    """Of Python, that is run."""
    args: Sequence[str]
    ports: Mapping[str, int]
    probes: Mapping[str, Any]
    grace_seconds: int
    account: str
    has_token: bool = False
    has_caches: bool = False
    model: ModelSource = _NOWHERE
    env: Sequence[Mapping[str, Any]] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    gates: Sequence[str] = ()
    volumes: Sequence[Mapping[str, Any]] = ()
    mounts: Sequence[Mapping[str, Any]] = ()
    metrics: str = "http"


def pod_template(context: Context, made: SGLangPod) -> dict[str, Any]:
    """With the overrides of cluster and role laid over it, the role's last."""
    caches = context.caches
    template = {
        "metadata": {
            "labels": {
                **(caches.pod_labels if made.has_caches else {}),
                **context.labels(made.role),
                **made.labels,
            },
            "annotations": {
                **(caches.pod_annotations if made.has_caches else {}),
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(made.ports[made.metrics]),
                "prometheus.io/path": "/metrics",
                KEYS_ANNOTATION: context.keys.digest,
                **made.annotations,
            },
        },
        "spec": _spec(context, made),
    }
    return pod.overlaid(
        pod.overlaid(template, context.spec.pod_template), made.settings.pod_template
    )


def _spec(context: Context, made: SGLangPod) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "serviceAccountName": made.account,
        "automountServiceAccountToken": made.has_token,
        "enableServiceLinks": False,
        "securityContext": pod.pod_security(),
        "terminationGracePeriodSeconds": made.grace_seconds,
        "containers": [_container(context, made)],
        "volumes": _volumes(context, made),
        **pod.pull_secrets(context.spec.image),
        **pod.scheduling(made.settings),
    }
    if made.model.init_containers:
        spec["initContainers"] = list(made.model.init_containers)
    if made.gates:
        spec["readinessGates"] = [{"conditionType": gate} for gate in made.gates]
    rdma = made.settings.rdma
    if (rdma is not None and rdma.host_network) or (
        made.has_caches and context.caches.host_network
    ):
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    return spec


def _container(context: Context, made: SGLangPod) -> dict[str, Any]:
    rdma = made.settings.rdma
    caches = context.caches
    has_lock = (rdma is not None and rdma.ipc_lock) or (made.has_caches and caches.ipc_lock)
    ports = [
        {"name": name, "containerPort": port, "protocol": "TCP"}
        for name, port in made.ports.items()
    ]
    return {
        "name": made.role,
        "image": settings_of(context).image,
        "imagePullPolicy": context.spec.image.pull_policy,
        "command": ["python3", "-m", made.module],
        "args": [*made.args, *made.settings.extra_args],
        "env": _env(context, made),
        "ports": ports,
        "resources": pod.resources(made.settings.resources, _devices(context, made)),
        "securityContext": pod.container_security(ipc_lock=has_lock),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            *made.model.mounts,
            *(dict(mount) for mount in (caches.mounts if made.has_caches else ())),
            *(dict(mount) for mount in made.mounts),
        ],
        **made.probes,
    }


def _env(context: Context, made: SGLangPod) -> list[dict[str, Any]]:
    """The user's own last: of one name they win."""
    key = admin_key_reference(context)
    admin = {"secretKeyRef": {"name": key.name, "key": key.key}}
    ours: list[Mapping[str, Any]] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "HOME", "value": "/tmp"},
    ]
    if made.role != "router":
        ours.append({"name": "KVLOOP_ADMIN_API_KEY", "valueFrom": admin})
    shared = context.caches.env if made.has_caches else ()
    named = {one["name"]: dict(one) for one in (*ours, *shared, *made.env, *made.settings.env)}
    return list(named.values())


def _volumes(context: Context, made: SGLangPod) -> list[dict[str, Any]]:
    return [
        {"name": "tmp", "emptyDir": {}},
        *made.model.volumes,
        *(dict(volume) for volume in (context.caches.volumes if made.has_caches else ())),
        *(dict(volume) for volume in made.volumes),
    ]


def _devices(context: Context, made: SGLangPod) -> dict[str, str | int]:
    settings = made.settings
    gpus = {settings.gpu_resource: settings.gpus} if settings.gpus else {}
    of_caches = context.caches.resources if made.has_caches else {}
    return {**of_caches, **pod.rdma_devices(settings.rdma), **gpus}

"""The pod of one role: what prefill, decode and router have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvloop.operator.build.pd_cluster.context import Context, attach_name, keys_name
from kvloop.operator.build.pd_cluster.model import ModelSource
from kvloop.operator.build.pod import (
    container_security,
    overlaid,
    pod_security,
    pull_secrets,
    rdma_devices,
    resources,
    scheduling,
)
from kvloop.operator.names import ATTACH_DIR, SECRETS_DIR
from kvloop.operator.types.base import KeyReference
from kvloop.operator.types.pd_cluster import Role

ADMIN_KEY, NODE_SECRET = "admin-key", "node-secret"
"""Keys of the Secret."""
ATTACH_FILE = f"{ATTACH_DIR}/attach.json"
SECRET_FILE = f"{SECRETS_DIR}/{NODE_SECRET}"
KEYS_ANNOTATION = "kvloop.dev/keys"
"""Of the pods: a digest that changes with the keys, which are read at start."""
_FIELDS = (
    ("POD_IP", "status.podIP"),
    ("POD_NAME", "metadata.name"),
    ("NODE_NAME", "spec.nodeName"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What tells one role's pods from another's."""

    role: str
    settings: Role
    command: Sequence[str]
    port: int
    model: ModelSource
    probes: Mapping[str, Any]
    grace_seconds: int
    labels: Mapping[str, str] = field(default_factory=dict)
    gates: Sequence[str] = ()
    secret_sources: Sequence[Mapping[str, Any]] = ()
    """Further files in SECRETS_DIR."""


def pod_template(context: Context, pod: Pod) -> dict[str, Any]:
    """With the overrides of cluster and role laid over it, the role's last."""
    template = {
        "metadata": {
            "labels": {
                **context.caches.pod_labels,
                **context.labels(pod.role),
                **pod.labels,
            },
            "annotations": {
                **context.caches.pod_annotations,
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(pod.port),
                "prometheus.io/path": "/metrics",
                KEYS_ANNOTATION: context.keys.digest,
            },
        },
        "spec": _pod_spec(context, pod),
    }
    return overlaid(overlaid(template, context.spec.pod_template), pod.settings.pod_template)


def _pod_spec(context: Context, pod: Pod) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "serviceAccountName": context.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": pod.grace_seconds,
        "containers": [_container(context, pod)],
        "volumes": _volumes(context, pod),
        **pull_secrets(context.spec.image),
        **scheduling(pod.settings),
    }
    if pod.model.init_containers:
        spec["initContainers"] = list(pod.model.init_containers)
    if pod.gates:
        spec["readinessGates"] = [{"conditionType": gate} for gate in pod.gates]
    if _host_network(context, pod.settings):
        # Ports may not meet on a node: the API server makes each one a host port.
        spec |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    return spec


def _container(context: Context, pod: Pod) -> dict[str, Any]:
    rdma = pod.settings.rdma
    return {
        "name": pod.role,
        "image": context.image,
        "imagePullPolicy": context.spec.image.pull_policy,
        "command": ["kvloop", pod.role],
        "args": [*pod.command, *context.caches.flags, *pod.settings.extra_args],
        "env": _env(context, pod.settings),
        "ports": [{"name": "http", "containerPort": pod.port, "protocol": "TCP"}],
        "resources": resources(pod.settings.resources, _devices(context, pod.settings)),
        "securityContext": container_security(
            ipc_lock=context.caches.ipc_lock or (rdma is not None and rdma.ipc_lock)
        ),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "attach", "mountPath": ATTACH_DIR, "readOnly": True},
            {"name": "secrets", "mountPath": SECRETS_DIR, "readOnly": True},
            *pod.model.mounts,
            *(dict(mount) for mount in context.caches.mounts),
        ],
        **pod.probes,
    }


def _env(context: Context, settings: Role) -> list[dict[str, Any]]:
    """The user's own last: of one name they win."""
    fields: list[Mapping[str, Any]] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in _FIELDS
    ]
    key = admin_key_reference(context)
    admin = {"secretKeyRef": {"name": key.name, "key": key.key}}
    ours = [
        *fields,
        {"name": "HOME", "value": "/tmp"},
        {"name": "KVLOOP_ADMIN_API_KEY", "valueFrom": admin},
    ]
    named = {one["name"]: dict(one) for one in (*ours, *context.caches.env, *settings.env)}
    return list(named.values())


def _volumes(context: Context, pod: Pod) -> list[dict[str, Any]]:
    node_secret = {
        "name": keys_name(context.name),
        "items": [{"key": NODE_SECRET, "path": NODE_SECRET}],
    }
    sources = [{"secret": node_secret}, *(dict(source) for source in pod.secret_sources)]
    return [
        {"name": "tmp", "emptyDir": {}},
        {"name": "attach", "secret": {"secretName": attach_name(context.name)}},
        {"name": "secrets", "projected": {"sources": sources}},
        *pod.model.volumes,
        *(dict(volume) for volume in context.caches.volumes),
    ]


def _devices(context: Context, settings: Role) -> dict[str, str | int]:
    gpus = {settings.gpu_resource: settings.gpus} if settings.gpus else {}
    return {**context.caches.resources, **rdma_devices(settings.rdma), **gpus}


def _host_network(context: Context, settings: Role) -> bool:
    asked = settings.rdma is not None and settings.rdma.host_network
    return asked or context.caches.host_network


def admin_key_reference(context: Context) -> KeyReference:
    """Where the admin key lies: the user's Secret, or the operator's."""
    own = KeyReference(name=keys_name(context.name), key=ADMIN_KEY)
    return context.spec.admin_key_secret or own


def http_probe(path: str, period_s: int, failures: int) -> dict[str, Any]:
    """Each attempt has ten seconds: a busy machine is no dead one."""
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "periodSeconds": period_s,
        "failureThreshold": failures,
        "timeoutSeconds": 10,
    }

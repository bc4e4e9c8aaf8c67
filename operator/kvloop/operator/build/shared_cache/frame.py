"""What all pods and objects of a SharedCache have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvloop.operator import names
from kvloop.operator.build import pod
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.settings import Settings
from kvloop.operator.types.pods import PodSettings
from kvloop.operator.types.shared_cache import SharedCache

STOP_S = 30
"""A store leaves its master in order; with an SSD it takes its time."""
_TMP = {"name": "tmp", "mountPath": "/tmp"}


def cache_labels(cache: SharedCache, component: str) -> dict[str, str]:
    """Of an object of this cache."""
    return names.labels(kind="shc", name=cache.metadata.name, component=component)


def pods_of(cache: SharedCache, component: str) -> dict[str, str]:
    """Labels that select these pods."""
    return names.selector(cache_labels(cache, component))


def metadata(cache: SharedCache, name: str, component: str) -> Manifest:
    """Of an object; the namespace comes with its owner."""
    return {"name": name, "labels": cache_labels(cache, component)}


def template(
    cache: SharedCache,
    settings: Settings,
    wanted: PodSettings,
    *,
    component: str,
    command: Sequence[str],
    resources: Mapping[str, Any],
    probes: Mapping[str, Any],
    ports: Mapping[str, int],
    mounts: Sequence[Mapping[str, Any]] = (),
    volumes: Sequence[Mapping[str, Any]] = (),
    ipc_lock: bool = False,
    **more: Any,
) -> Manifest:
    """A pod of one container named after its component; `more` are fields of the pod's spec."""
    image = cache.spec.image
    container = {
        "name": component,
        "image": image.reference or settings.node_image,
        "imagePullPolicy": image.pull_policy,
        "command": [*command, *wanted.extra_args],
        "env": _named_once([*_ENVIRONMENT, *wanted.env]),
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "resources": dict(resources),
        "securityContext": pod.container_security(ipc_lock=ipc_lock),
        "volumeMounts": [_TMP, *mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **probes,
    }
    made = {
        "metadata": {"labels": cache_labels(cache, component)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": STOP_S,
            "securityContext": pod.pod_security(),
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
            **pod.scheduling(wanted),
            **pod.pull_secrets(image),
            **more,
        },
    }
    return pod.overlaid(made, wanted.pod_template)


def headless(cache: SharedCache, name: str, component: str, ports: Mapping[str, int]) -> Manifest:
    """Gives each pod a name of its own, also before it is ready."""
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": pods_of(cache, component),
        "ports": service_ports(ports),
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(cache, name, component),
        "spec": spec,
    }


def service_ports(ports: Mapping[str, int]) -> list[Manifest]:
    """Of a Service: equal to the pods'."""
    return [
        {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}
        for name, port in ports.items()
    ]


def disruption_budget(
    cache: SharedCache, settings: Settings, name: str, component: str
) -> Manifest:
    """One of these pods at a time may be asked to leave its node."""
    selector = {"matchLabels": pods_of(cache, component)}
    return {
        "apiVersion": budget_version(settings),
        "kind": "PodDisruptionBudget",
        "metadata": metadata(cache, name, component),
        "spec": {"maxUnavailable": 1, "selector": selector},
    }


def _named_once(variables: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The last of each name: server-side apply refuses a name twice."""
    return list({variable["name"]: variable for variable in variables}.values())


def budget_version(settings: Settings) -> str:
    """Of PodDisruptionBudgets."""
    return "policy/v1" if settings.kubernetes >= (1, 21) else "policy/v1beta1"


def cron_version(settings: Settings) -> str:
    """Of CronJobs."""
    return "batch/v1" if settings.kubernetes >= (1, 21) else "batch/v1beta1"


def tcp_probe(port: int, **more: int) -> Manifest:
    """Something listens."""
    return {"tcpSocket": {"port": port}, **more}


def http_probe(path: str, port: int, **more: int) -> Manifest:
    """It answers 200."""
    return {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 5, **more}


def _from(field: str) -> Manifest:
    return {"valueFrom": {"fieldRef": {"fieldPath": field}}}


_ENVIRONMENT: tuple[Manifest, ...] = (
    {"name": "POD_IP", **_from("status.podIP")},
    {"name": "POD_NAME", **_from("metadata.name")},
    {"name": "POD_UID", **_from("metadata.uid")},
    {"name": "HOME", "value": "/tmp"},
)

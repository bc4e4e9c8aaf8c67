"""The report as a ConfigMap. docs/bench-job.md has its keys, labels and the rights it needs."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvloop.benchmark.outlets.apply import FIELD_MANAGER, apply
from kvloop.benchmark.outlets.content import Content, fit
from kvloop.benchmark.outlets.in_cluster import InCluster
from kvloop.benchmark.results.document import Report
from kvloop.shared_cache.errors import ConfigError

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
LEFT_OUT = "kvloop.dev/left-out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whom the ConfigMap goes with when it is deleted."""

    api_version: str
    kind: str
    name: str
    uid: str

    @classmethod
    def found(cls, environment: Mapping[str, str]) -> Owner | None:
        """The Job, else the pod, that the downward API put into the environment."""
        for prefix, api_version, kind in (("JOB", "batch/v1", "Job"), ("POD", "v1", "Pod")):
            name = environment.get(f"KVLOOP_{prefix}_NAME")
            uid = environment.get(f"KVLOOP_{prefix}_UID")
            if name and uid:
                return cls(api_version=api_version, kind=kind, name=name, uid=uid)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMapTarget:
    """Where the ConfigMap goes."""

    cluster: InCluster
    namespace: str
    name: str
    owner: Owner | None = None
    deadline_s: float = 60.0
    """For all tries together."""


def parse_target(text: str, environment: Mapping[str, str], cluster: InCluster) -> ConfigMapTarget:
    """NAME in the pod's own namespace, or NAMESPACE/NAME. Raises ConfigError."""
    namespace, slash, name = text.rpartition("/")
    for what, value in (("name", name), *((("namespace", namespace),) if slash else ())):
        if not _is_name(value, has_dots=what == "name"):
            raise ConfigError(
                f"--config-map {text}: {value!r} is no {what} of Kubernetes: NAME or "
                "NAMESPACE/NAME of small letters, digits and - are right"
            )
    # An owner in another namespace counts as gone: what it owns there is deleted at once.
    is_own = not namespace or cluster.is_in(namespace)
    return ConfigMapTarget(
        cluster=cluster,
        namespace=namespace or cluster.namespace,
        name=name,
        owner=Owner.found(environment) if is_own else None,
    )


def _is_name(text: str, *, has_dots: bool) -> bool:
    shape = rf"{_LABEL}(\.{_LABEL})*" if has_dots else _LABEL
    return len(text) <= 253 and re.fullmatch(shape, text) is not None


def write_config_map(report: Report, page: str, summary: bytes, target: ConfigMapTarget) -> Content:
    """Apply it with force: of one name there is one ConfigMap, the last run's.

    Takes at most `target.deadline_s`. Returns what was written. Raises OutletError.
    """
    content = fit(report, page, summary)
    body = build_config_map(report, content, target.namespace, target.name, target.owner)
    apply(body, target.cluster, target.deadline_s)
    return content


def build_config_map(
    report: Report, content: Content, namespace: str, name: str, owner: Owner | None
) -> dict[str, Any]:
    """The object as it is applied."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": {
            "app.kubernetes.io/name": "kvloop",
            "app.kubernetes.io/component": "benchmark",
            "app.kubernetes.io/managed-by": FIELD_MANAGER,
            "kvloop.dev/workload": _label(str(report.workload.get("kind", "unknown"))),
        },
        "annotations": {
            "kvloop.dev/schema": report.schema,
            "kvloop.dev/started-at": report.started_at,
            LEFT_OUT: ", ".join(content.left_out),
        },
    }
    if owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": owner.api_version,
                "kind": owner.kind,
                "name": owner.name,
                "uid": owner.uid,
            }
        ]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": content.texts,
        "binaryData": {key: b64encode(value).decode() for key, value in content.binaries.items()},
    }


def _label(text: str) -> str:
    """What a label's value may hold: at most 63 of letters, digits, - _ and dots inside."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.") or "unknown"

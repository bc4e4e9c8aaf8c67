"""What is on a cluster, by name: to see that an uninstall leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Kubectl = Callable[..., str]
_MADE_BY_OTHERS = (
    "configmap/kube-root-ca.crt",
    "serviceaccount/default",
    "secret/default-token-",
    "event",
)
"""Of every namespace, beginnings of what Kubernetes itself puts there."""
_WITH_OTHERS = ("namespace/", "apiservice.")
"""The tests' own; what Kubernetes makes for the group of a definition."""


def objects(kubectl: Kubectl, namespaces: Iterable[str], release: str) -> set[str]:
    """All in these namespaces, and what belongs to the whole cluster and bears the release's name
    or our group's."""
    found = set()
    for namespace in namespaces:
        kinds = _kinds(kubectl, "--namespaced=true")
        told = kubectl("get", kinds, "-n", namespace, "-o", "name", "--ignore-not-found")
        found |= {f"{namespace}/{name}" for name in told.split() if _is_ours(name)}
    told = kubectl("get", _kinds(kubectl, "--namespaced=false"), "-o", "name", "--ignore-not-found")
    marks = (release, "kvloop.dev")
    return found | {
        name
        for name in told.split()
        if any(mark in name for mark in marks) and not name.startswith(_WITH_OTHERS)
    }


def _kinds(kubectl: Kubectl, scope: str) -> str:
    return ",".join(sorted(kubectl("api-resources", "--verbs=list", scope, "-o", "name").split()))


def _is_ours(name: str) -> bool:
    return not name.startswith(_MADE_BY_OTHERS)

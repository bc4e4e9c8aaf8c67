"""What becomes of custom resources when their operator goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kvloop.cli.install.kubernetes_api import (
    BENCHMARK,
    KINDS,
    PART_OF,
    PD_CLUSTER,
    SHARED_CACHE,
    Cluster,
    operator_labels,
)
from kvloop.shared_cache.errors import ConfigError, KVLoopError

_LOOK_S = 1.0
_TELL_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """Of the resources that go, or lose their operator."""

    namespaces: tuple[str, ...]
    """Where to look for them; empty: everywhere."""
    is_deleted_with_definitions: bool
    """The release takes its definitions along, and they every resource."""
    wanted: Literal["delete", "keep"] | None

    @staticmethod
    def of(values: Mapping[str, Any], wanted: Literal["delete", "keep"] | None) -> Fate:
        """From all values of the release."""
        crds = values.get("crds") or {}
        all_go = bool(crds.get("enabled")) and not crds.get("keep")
        watched = (values.get("operator") or {}).get("namespaces") or ()
        return Fate(
            # Without the definitions, resources of other operators' namespaces are gone too.
            namespaces=() if all_go else tuple(watched),
            is_deleted_with_definitions=all_go,
            wanted=wanted,
        )


def remove_resources(cluster: Cluster, fate: Fate, deadline: float) -> None:
    """Delete them and wait for their pods, or make sure that they may stay.

    Raises `ConfigError` where there are some and `fate` does not say what becomes of them.
    """
    counts = {kind: cluster.resources(kind, fate.namespaces) or [] for kind in KINDS}
    if not any(counts.values()):
        return
    there = ", ".join(f"{len(found)} {kind.name}" for kind, found in counts.items() if found)
    refuse(there, fate)
    if fate.wanted == "keep":
        return
    # Loads end before what they ask, clusters before their store.
    for kind in (BENCHMARK, PD_CLUSTER, SHARED_CACHE):
        for resource in counts[kind]:
            cluster.delete(kind, resource)
    _wait(lambda: _left(cluster, fate.namespaces), deadline)


def wait_for_operator(cluster: Cluster, namespace: str, release: str, deadline: float) -> None:
    """Until its pods are gone: helm waits for the Deployment only."""
    labels = operator_labels(release)
    _wait(lambda: [f"pod {name}" for name in cluster.pods([namespace], labels)], deadline)


def refuse(there: str, fate: Fate) -> None:
    """Where it is not said what becomes of them, or it cannot be."""
    if fate.wanted is None:
        raise ConfigError(
            f"the cluster has {there}, whose pods serve: say --resources delete to stop and "
            "delete them first, or --resources keep"
        )
    if fate.wanted == "keep" and fate.is_deleted_with_definitions:
        raise ConfigError(
            f"--resources keep: the release takes its definitions along, and with them {there}: "
            "first run kvloop upgrade --set crds.keep=true"
        )


def _left(cluster: Cluster, namespaces: Sequence[str]) -> list[str]:
    resources = [
        f"{kind.short} {one['metadata']['namespace']}/{one['metadata']['name']}"
        for kind in KINDS
        for one in cluster.resources(kind, namespaces) or []
    ]
    return resources + [f"pod {name}" for name in cluster.pods(namespaces, PART_OF)]


def _wait(look: Callable[[], list[str]], deadline: float) -> None:
    """Until nothing is left; says on stderr what is."""
    told = float("-inf")
    while left := look():
        now = time.monotonic()
        if now > deadline:
            raise KVLoopError(f"--timeout: still there: {', '.join(left)}")
        if now - told > _TELL_S:
            told = now
            print(f"waiting for {', '.join(left)}", file=sys.stderr, flush=True)
        time.sleep(_LOOK_S)

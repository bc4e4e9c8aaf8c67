"""What becomes of custom resources when their operator goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kvloop.cli.install.kubernetes_api import BENCHMARK, KINDS, PD_CLUSTER, SHARED_CACHE, Cluster
from kvloop.shared_cache.errors import ConfigError, KVLoopError

_LOOK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """Of the resources in the namespaces that the release watches."""

    namespaces: tuple[str, ...]
    is_deleted_with_definitions: bool
    """The release takes its definitions along, and they every resource."""
    wanted: Literal["delete", "keep"] | None

    @staticmethod
    def of(values: Mapping[str, Any], wanted: Literal["delete", "keep"] | None) -> Fate:
        """From all values of the release."""
        crds = values.get("crds") or {}
        return Fate(
            namespaces=tuple((values.get("operator") or {}).get("namespaces") or ()),
            is_deleted_with_definitions=bool(crds.get("enabled")) and not crds.get("keep"),
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
    _wait(cluster, fate.namespaces, deadline)


def refuse(there: str, fate: Fate) -> None:
    """Where it is not said what becomes of them, or it cannot be."""
    if fate.wanted is None:
        raise ConfigError(
            f"the cluster has {there}, whose pods serve: say --resources delete to stop and "
            "delete them first, or --resources keep"
        )
    if fate.wanted == "keep" and fate.is_deleted_with_definitions:
        raise ConfigError(
            f"--resources keep: the release takes its definitions along, and they {there}: "
            "first run kvloop upgrade --set crds.keep=true"
        )


def _wait(cluster: Cluster, namespaces: Sequence[str], deadline: float) -> None:
    told = 0.0
    while True:
        left = [
            f"{kind.short} {one['metadata']['namespace']}/{one['metadata']['name']}"
            for kind in KINDS
            for one in cluster.resources(kind, namespaces) or []
        ]
        left += [f"pod {name}" for name in cluster.pods(namespaces)]
        if not left:
            return
        if time.monotonic() > deadline:
            raise KVLoopError(f"--timeout: still there: {', '.join(left)}")
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"waiting for {', '.join(left)}", file=sys.stderr, flush=True)
        time.sleep(_LOOK_S)

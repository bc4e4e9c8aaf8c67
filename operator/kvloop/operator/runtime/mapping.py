"""Which resources an event concerns: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kvloop.operator.controllers.base import Manifest
from kvloop.operator.runtime.queue import Key
from kvloop.operator.types.base import API_VERSION

SHORT_NAMES = {
    "kvloop.dev/shc": "SharedCache",
    "kvloop.dev/pdc": "PDCluster",
    "kvloop.dev/mtb": "MultiTurnBenchmark",
}
"""Labels of what we make, see `names.labels`."""


def key_of(resource: Manifest) -> Key:
    """Of a resource of ours."""
    metadata = resource["metadata"]
    return Key(resource["kind"], metadata["namespace"], metadata["name"])


def owners(manifest: Manifest) -> set[Key]:
    """The resources that an object was made for: by its owners, else by its labels (a pod's owner
    is its ReplicaSet)."""
    metadata = manifest["metadata"]
    namespace = metadata["namespace"]
    by_owner = {
        Key(owner["kind"], namespace, owner["name"])
        for owner in metadata.get("ownerReferences") or ()
        if owner["apiVersion"] == API_VERSION
    }
    labels = metadata.get("labels") or {}
    return by_owner or {
        Key(kind, namespace, labels[label])
        for label, kind in SHORT_NAMES.items()
        if label in labels
    }


def references(resource: Manifest) -> set[Key]:
    """The resources that this one names; whatever else is in it."""
    spec = resource.get("spec")
    finder = _FINDERS.get(resource["kind"])
    if finder is None or not isinstance(spec, Mapping):
        return set()
    namespace = resource["metadata"]["namespace"]
    return {
        Key(kind, namespace, found["name"])
        for kind, found in finder(spec)
        if isinstance(found, Mapping) and isinstance(found.get("name"), str)
    }


class References:
    """Who names whom, as far as seen."""

    def __init__(self) -> None:
        self._named: dict[Key, set[Key]] = {}

    def see(self, resource: Manifest) -> None:
        """As it is now."""
        self._named[key_of(resource)] = references(resource)

    def forget(self, key: Key) -> None:
        """It is gone."""
        self._named.pop(key, None)

    def to(self, key: Key) -> set[Key]:
        """Those that name it, also by way of others: a PDCluster by a SharedCache of zones."""
        found: set[Key] = set()
        new = {key}
        while new:
            new = {who for who, named in self._named.items() if named & new} - found - {key}
            found |= new
        return found


def _of_cache(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    zones = spec.get("zones")
    if isinstance(zones, Mapping):
        yield "SharedCache", zones.get("local")
        yield "SharedCache", zones.get("central")


def _of_cluster(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "SharedCache", spec.get("sharedCacheRef")
    caches = spec.get("attachableCaches")
    for cache in caches if isinstance(caches, list) else ():
        yield "SharedCache", cache


def _of_benchmark(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    target = spec.get("target")
    if isinstance(target, Mapping):
        yield "PDCluster", target.get("clusterRef")


_FINDERS = {
    "SharedCache": _of_cache,
    "PDCluster": _of_cluster,
    "MultiTurnBenchmark": _of_benchmark,
}

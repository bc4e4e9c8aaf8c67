"""An API server in memory, for controllers: objects by identity, no controllers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from kvloop.operator.controllers.base import Manifest, ObjectId


def id_of(manifest: Manifest) -> ObjectId:
    """What identifies it."""
    return ObjectId(
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        namespace=manifest["metadata"]["namespace"],
        name=manifest["metadata"]["name"],
    )


@dataclass(slots=True)
class MemoryApi:
    """`kvloop.operator.controllers.base.Api`; apply lays fields over what is there."""

    objects: dict[ObjectId, Manifest] = field(default_factory=dict)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    """Verb, kind and name of each change that was made."""
    num_uids: int = 0

    def add(self, manifest: Manifest) -> Manifest:
        """As if somebody else had made it."""
        self.num_uids += 1
        kept = deepcopy(manifest)
        kept["metadata"].setdefault("uid", f"uid-{self.num_uids}")
        kept["metadata"].setdefault("resourceVersion", "1")
        self.objects[id_of(kept)] = kept
        return kept

    def of_kind(self, kind: str) -> list[Manifest]:
        """In the order in which they were made."""
        return [one for what, one in self.objects.items() if what.kind == kind]

    async def get(self, what: ObjectId) -> Manifest | None:
        return deepcopy(self.objects.get(what))

    async def list(
        self, api_version: str, kind: str, namespace: str, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        wanted = (labels or {}).items()
        return [
            deepcopy(one)
            for what, one in self.objects.items()
            if (what.api_version, what.kind, what.namespace) == (api_version, kind, namespace)
            and wanted <= one["metadata"].get("labels", {}).items()
        ]

    async def apply(self, manifest: Manifest) -> Manifest:
        before = self.objects.get(id_of(manifest))
        if before is not None and _covers(before, manifest):
            return deepcopy(before)
        self._note("apply", manifest)
        if before is None:
            return deepcopy(self.add(manifest))
        merged = _merged(before, deepcopy(manifest))
        self.objects[id_of(manifest)] = merged
        return deepcopy(merged)

    async def create(self, manifest: Manifest) -> Manifest | None:
        if id_of(manifest) in self.objects:
            return None
        self._note("create", manifest)
        return deepcopy(self.add(manifest))

    async def delete(self, what: ObjectId, *, uid: str | None = None) -> None:
        found = self.objects.get(what)
        if found is None or uid not in (None, found["metadata"]["uid"]):
            return
        self._note("delete", found)
        del self.objects[what]

    async def patch_status(self, what: ObjectId, status: Mapping[str, Any]) -> None:
        self.objects[what]["status"] = {**self.objects[what].get("status", {}), **status}

    def _note(self, verb: str, manifest: Manifest) -> None:
        self.calls.append((verb, manifest["kind"], manifest["metadata"]["name"]))


def _merged(under: Any, over: Any) -> Any:
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    return under | {key: _merged(under.get(key), value) for key, value in over.items()}


def _covers(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(key in found and _covers(found[key], value) for key, value in wanted.items())
    return bool(found == wanted)

"""The seam between controllers and the cluster's API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Manifest = dict[str, Any]
"""One Kubernetes object, as in YAML."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectId:
    """What identifies an object."""

    api_version: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What `kubectl describe` shows of a resource."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one look."""

    status: Mapping[str, Any]
    """The whole status, camelCase."""
    requeue_s: float = 10.0
    """Look again after this at the latest."""
    events: Sequence[Event] = ()


class Api(Protocol):
    """The cluster. Every call has a deadline; `ApiError` where it did not succeed."""

    async def get(self, what: ObjectId) -> Manifest | None:
        """None where it is not there."""

    async def list(
        self, api_version: str, kind: str, namespace: str, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        """Those with all these labels."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply by our field manager, with force; nothing is sent where it would
        change nothing."""

    async def create(self, manifest: Manifest) -> Manifest | None:
        """None where one of that name is there already."""

    async def delete(self, what: ObjectId, *, uid: str | None = None) -> None:
        """In the background; no error where it is gone already."""

    async def patch_status(self, what: ObjectId, status: Mapping[str, Any]) -> None:
        """Merge into the status subresource (of pods: conditions by type)."""


class Controller(Protocol):
    """Of one kind of resource. Level-triggered: all that it knows it can see again."""

    kind: str
    """SharedCache, PDCluster or MultiTurnBenchmark."""

    async def reconcile(self, resource: Manifest, api: Api) -> Result:
        """Look once. Called again on changes of the resource and of what it owns, and by time.

        A resource that breaks a rule is told in its conditions, never raised. `ApiError` is
        retried with back-off by the caller.
        """

    async def close(self) -> None:
        """End what it runs beside its looks; the process no longer leads."""

"""One look at one resource: read, reconcile, tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kvloop.operator.api import KubernetesApi
from kvloop.operator.conditions import (
    ConditionStatus,
    as_status,
    conditions_of,
    with_condition,
)
from kvloop.operator.controllers.base import Controller, Event, Manifest, ObjectId, Result
from kvloop.operator.errors import ApiError
from kvloop.operator.runtime.events import EventWriter
from kvloop.operator.runtime.mapping import References, key_of
from kvloop.operator.runtime.metrics import Metrics
from kvloop.operator.runtime.queue import Key
from kvloop.operator.runtime.status import status_patch
from kvloop.operator.types.base import API_VERSION

LOOK_S = 120.0
"""Deadline of one look."""
TERMINATING_S = 30.0
TOLD_AFTER = 3
"""Failures in a row: one may be a conflict."""
FAILED = "ReconcileFailed"
CONFLICTS = 5
"""Tries of a status that others write too."""


class Reconciler:
    """Of all kinds that have a controller."""

    def __init__(
        self,
        controllers: Mapping[str, Controller],
        api: KubernetesApi,
        *,
        references: References,
        events: EventWriter,
        metrics: Metrics,
    ) -> None:
        self._controllers = controllers
        self._api = api
        self._references = references
        self._events = events
        self._metrics = metrics
        self._failures: dict[Key, int] = {}
        self._told: set[Key] = set()
        """Those whose failure is in their status."""

    async def look(self, key: Key) -> float | None:
        """Seconds until the next look; None where the resource is gone."""
        try:
            after_s = await self._look(key)
        except Exception as error:
            self._failures[key] = self._failures.get(key, 0) + 1
            if self._failures[key] >= TOLD_AFTER and key not in self._told:
                await self._tell_failure(key, error)
            raise
        self._failures.pop(key, None)
        self._told.discard(key)
        return after_s

    async def _look(self, key: Key) -> float | None:
        resource = await self._api.get(_id(key))
        if resource is None:
            self._references.forget(key)
            self._metrics.forget(*key)
            return None
        self._references.see(resource)
        if resource["metadata"].get("deletionTimestamp"):
            # What it owns goes with it: applying now would bring that back.
            await self._tell_ready(resource, "False", "Terminating", "It is being deleted.")
            return TERMINATING_S
        async with asyncio.timeout(LOOK_S):
            result = await self._controllers[key.kind].reconcile(resource, self._api)
        await self._tell(resource, result)
        return result.requeue_s

    async def _tell_failure(self, key: Key, error: Exception) -> None:
        """What is told so far may be true no longer; tried again where that fails, too."""
        why = f"The operator could not look at it: {error or type(error).__name__}"
        with contextlib.suppress(ApiError):
            resource = await self._api.get(_id(key))
            if resource is not None:
                await self._events.post(resource, Event(type="Warning", reason=FAILED, message=why))
                await self._tell_ready(resource, "Unknown", FAILED, why)
            self._told.add(key)

    async def _tell_ready(
        self, resource: Manifest, status: ConditionStatus, reason: str, message: str
    ) -> None:
        """Kinds that have no such condition have no word for it."""
        if resource["kind"] == "MultiTurnBenchmark":
            return
        there = resource.get("status") or {}
        conditions = with_condition(
            conditions_of(there),
            type="Ready",
            status=status,
            reason=reason,
            message=message,
            generation=resource["metadata"]["generation"],
            now=datetime.now(UTC),
        )
        told = as_status(conditions)
        await write_status(self._api, resource, {**there, "conditions": told})
        self._metrics.show_conditions(*key_of(resource), told)

    async def _tell(self, resource: Manifest, result: Result) -> None:
        """Status first: events are a courtesy."""
        await write_status(self._api, resource, result.status)
        self._metrics.show_conditions(*key_of(resource), result.status.get("conditions", ()))
        for event in result.events:
            await self._events.post(resource, event)


async def write_status(api: KubernetesApi, resource: Manifest, status: Mapping[str, Any]) -> None:
    """Guarded by the version that was read, so that no other writer's condition is lost."""
    seen = live = resource
    what = _id(key_of(resource))
    for _ in range(CONFLICTS):
        patch = status_patch(seen.get("status") or {}, status, live.get("status") or {})
        if not patch:
            return
        version = {"resourceVersion": live["metadata"]["resourceVersion"]}
        try:
            await api.patch(what, {"metadata": version, "status": patch}, subresource="status")
            return
        except ApiError as error:
            if error.status != 409:
                raise
        again = await api.get(what)
        if again is None or again["metadata"]["uid"] != seen["metadata"]["uid"]:
            return
        live = again
    raise ApiError(f"status of {key_of(resource)}: others keep writing it", status=409)


def _id(key: Key) -> ObjectId:
    return ObjectId(api_version=API_VERSION, kind=key.kind, namespace=key.namespace, name=key.name)

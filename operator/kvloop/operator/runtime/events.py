"""Kubernetes Events: one object for each thing that happens, counted where it happens again."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kvloop.operator.api import KubernetesApi
from kvloop.operator.controllers.base import Event, Manifest, ObjectId
from kvloop.operator.errors import ApiError
from kvloop.operator.names import FIELD_MANAGER

log = logging.getLogger(__name__)
QUIET_S = 600.0
"""The same event again within this is not sent: a controller may say it at each look."""
REMEMBERED = 2000
MESSAGE = 1000
"""Characters; the API server takes 1024."""


class EventWriter:
    """Posts by name, so that a restarted operator goes on counting."""

    def __init__(self, api: KubernetesApi, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._sent: dict[str, float] = {}

    async def post(self, resource: Manifest, event: Event) -> None:
        """A failure is logged only: events are a courtesy."""
        name = event_name(resource, event)
        now = self._clock()
        if now - self._sent.get(name, float("-inf")) < QUIET_S:
            return
        try:
            await self._write(event_manifest(resource, event, name, _now()))
        except ApiError as error:
            log.warning("no event of %s: %s", resource["metadata"]["name"], error)
            return
        self._remember(name, now)

    async def _write(self, manifest: Manifest) -> None:
        if await self._api.create(manifest) is not None:
            return
        what = ObjectId(
            api_version="v1",
            kind="Event",
            namespace=manifest["metadata"]["namespace"],
            name=manifest["metadata"]["name"],
        )
        there = await self._api.get(what)
        count = (there or {}).get("count") or 1
        seen: dict[str, Any] = {"count": count + 1, "lastTimestamp": manifest["lastTimestamp"]}
        await self._api.patch(what, seen)

    def _remember(self, name: str, now: float) -> None:
        self._sent.pop(name, None)
        self._sent[name] = now
        while len(self._sent) > REMEMBERED:
            self._sent.pop(next(iter(self._sent)))


def event_name(resource: Manifest, event: Event) -> str:
    """The same for the same thing."""
    metadata = resource["metadata"]
    what = "\0".join((metadata["uid"], event.type, event.reason, event.message))
    return f"{metadata['name'][:200]}.{hashlib.sha256(what.encode()).hexdigest()[:16]}"


def event_manifest(resource: Manifest, event: Event, name: str, now: str) -> Manifest:
    """Of the first time."""
    metadata = resource["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:MESSAGE],
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": FIELD_MANAGER},
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""SharedCache: runs what it asks for, and tells whether it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from kvloop.operator.build.shared_cache import KIND, build_shared_cache
from kvloop.operator.build.shared_cache.possible import possible
from kvloop.operator.caches.look import Looker
from kvloop.operator.caches.probe import NetworkProbe, Probe
from kvloop.operator.caches.seen import Looked, Verdict
from kvloop.operator.caches.words import in_words
from kvloop.operator.conditions import as_status, condition, conditions_of, with_condition
from kvloop.operator.connect import connect
from kvloop.operator.controllers.base import Api, Event, Manifest, ObjectId, Result
from kvloop.operator.errors import ApiError, ConnectError
from kvloop.operator.parse import InvalidResource, parse_shared_cache
from kvloop.operator.settings import Settings
from kvloop.operator.types.base import API_VERSION, Condition
from kvloop.operator.types.shared_cache import SharedCache, SharedCacheStatus

SOON_S = 3.0
"""While it is not ready: pods tell of themselves, but a master's figures nobody tells."""
_REFUSED = (400, 403, 404, 405, 409, 422)
"""Of an object that the API server takes in no other way however often it is asked."""


def _now() -> datetime:
    return datetime.now(UTC)


class SharedCacheController:
    """Of SharedCaches. It holds nothing between two looks."""

    kind = KIND

    def __init__(
        self,
        settings: Settings,
        probe: Probe | None = None,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._settings = settings
        self._probe = probe or NetworkProbe(settings.node_timeout_s)
        self._now = now

    async def close(self) -> None:
        """Nothing runs beside its looks."""

    async def reconcile(self, resource: Manifest, api: Api) -> Result:
        """As in `Controller`."""
        try:
            cache = parse_shared_cache(resource)
            connect(cache, await _others(cache, api))
        except InvalidResource as error:
            return self._told(resource, Looked(verdict=_invalid(str(error))))
        except ConnectError as error:
            return self._told(resource, Looked(verdict=_invalid(f"spec.{error}")))
        refused = await self._apply(cache, resource, api)
        looked = await Looker(cache=cache, api=api, probe=self._probe).look()
        if refused is not None:
            looked = Looked(verdict=refused, figures=looked.figures)
        return self._told(resource, looked)

    async def _apply(self, cache: SharedCache, resource: Manifest, api: Api) -> Verdict | None:
        """What was refused for good, if anything; the rest is applied all the same."""
        wanted = build_shared_cache(cache, self._settings)
        errors = []
        for manifest in wanted:
            try:
                await api.apply(manifest)
            except ApiError as error:
                if error.status not in _REFUSED:
                    raise
                errors.append(f"{manifest['kind']} {manifest['metadata']['name']}: {error}")
        status = resource.get("status") or {}
        if status.get("observedGeneration") != cache.metadata.generation:
            await self._remove_others(cache, wanted, api)
        if not errors:
            return None
        return Verdict(status="False", reason="Refused", message="; ".join(errors))

    async def _remove_others(
        self, cache: SharedCache, wanted: Sequence[Manifest], api: Api
    ) -> None:
        """What an earlier generation ran; never what is not this cache's."""
        kept = {_id(manifest) for manifest in wanted}
        for what in possible(cache, self._settings):
            found = None if what in kept else await api.get(what)
            if found is not None and _is_of(found, cache):
                await api.delete(what, uid=found["metadata"]["uid"])

    def _told(self, resource: Manifest, looked: Looked) -> Result:
        verdict, figures = looked.verdict, looked.figures
        before = conditions_of(resource.get("status"))
        generation = int(resource["metadata"].get("generation", 0))
        conditions = with_condition(
            before,
            type="Ready",
            status=verdict.status,
            reason=verdict.reason,
            message=verdict.message,
            generation=generation,
            now=self._now(),
        )
        status = SharedCacheStatus(
            observed_generation=generation,
            endpoint=figures.endpoint,
            capacity_bytes=figures.capacity_bytes,
            used_bytes=figures.used_bytes,
            capacity=_words(figures.capacity_bytes),
            used=_words(figures.used_bytes),
            replicas=figures.replicas,
            ready_replicas=figures.ready_replicas,
            selector=figures.selector,
            members=list(figures.members[:1000]),
        )
        told = status.model_dump(by_alias=True, exclude_none=True)
        is_well = verdict.status == "True" and verdict.reason == "Ready"
        return Result(
            status={**told, "conditions": as_status(conditions)},
            requeue_s=self._settings.resync_s if is_well else min(SOON_S, self._settings.resync_s),
            events=_events(before, verdict),
        )


async def _others(cache: SharedCache, api: Api) -> Mapping[str, SharedCache]:
    """The parts of zones that are there and well-formed."""
    if cache.spec.zones is None:
        return {}
    found = {}
    for manifest in await api.list(API_VERSION, KIND, cache.metadata.namespace):
        try:
            found[manifest["metadata"]["name"]] = parse_shared_cache(manifest)
        except InvalidResource:
            continue
    return found


def _is_of(manifest: Mapping[str, Any], cache: SharedCache) -> bool:
    owners = manifest["metadata"].get("ownerReferences") or ()
    return any(owner["uid"] == cache.metadata.uid for owner in owners)


def _id(manifest: Manifest) -> ObjectId:
    return ObjectId(
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        namespace=manifest["metadata"]["namespace"],
        name=manifest["metadata"]["name"],
    )


def _invalid(message: str) -> Verdict:
    return Verdict(status="False", reason="InvalidConfig", message=message)


def _words(num_bytes: int | None) -> str:
    return "" if num_bytes is None else in_words(num_bytes)


def _events(before: Sequence[Condition], verdict: Verdict) -> list[Event]:
    """One where Ready changed, or its reason."""
    was = condition(before, "Ready")
    if was is not None and (was.status, was.reason) == (verdict.status, verdict.reason):
        return []
    is_bad = verdict.status == "False" or verdict.reason in ("Degraded", "JanitorFailed")
    kind: Literal["Normal", "Warning"] = "Warning" if is_bad else "Normal"
    return [Event(type=kind, reason=verdict.reason, message=verdict.message)]

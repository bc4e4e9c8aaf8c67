"""One look at a SharedCache: reads what its kind of storage lets be seen, judges by pure code."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kvloop.operator.build.shared_cache import janitor, masters, nixl_store, stores
from kvloop.operator.caches import volumes
from kvloop.operator.caches.janitor import with_janitor
from kvloop.operator.caches.mooncake import MooncakeSeen, look_at_mooncake
from kvloop.operator.caches.nixl import look_at_server
from kvloop.operator.caches.probe import Probe
from kvloop.operator.caches.seen import Figures, Looked, MasterView, Verdict
from kvloop.operator.caches.zones import of_zones
from kvloop.operator.conditions import condition, conditions_of
from kvloop.operator.connect.nixl import CREDENTIALS, nixl_server
from kvloop.operator.controllers.base import Api, Manifest, ObjectId
from kvloop.operator.names import COMPONENT
from kvloop.operator.pod_trouble import is_ready
from kvloop.operator.quantity import num_bytes
from kvloop.operator.types.base import API_VERSION, Condition
from kvloop.operator.types.pods import Volume
from kvloop.operator.types.shared_cache import SharedCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Looker:
    """At one cache."""

    cache: SharedCache
    api: Api
    probe: Probe

    async def look(self) -> Looked:
        """ApiError where the API server fails; what else fails is in the verdict."""
        spec = self.cache.spec
        if spec.mooncake is not None:
            external = spec.mooncake.external
            return await (self._mooncake() if external is None else self._external(external))
        if spec.nixl is not None:
            return await self._nixl()
        if spec.zones is not None:
            return await self._zones(spec.zones.local.name, spec.zones.central.name)
        if spec.dynamic is not None:
            return await self._dynamic()
        if spec.hf3fs is not None:
            return await self._three_fs()
        if spec.file is not None:
            capacity = spec.file.capacity
            return await self._volume(spec.file.volume, spec.file.directory, capacity)
        assert spec.aibrix is not None
        return await self._volume(spec.aibrix.volume, "kvloop", None)

    # --- Mooncake -----------------------------------------------------------------------------

    async def _mooncake(self) -> Looked:
        assert self.cache.spec.mooncake is not None
        pods, port = await self._pods(), self.cache.spec.mooncake.masters.metrics_port
        asked = {
            pod["metadata"]["name"]: pod["status"]["podIP"]
            for pod in pods
            if pod["metadata"]["labels"].get(COMPONENT) == masters.COMPONENT and is_ready(pod)
        }
        answers = await asyncio.gather(*(self.probe.master(ip, port) for ip in asked.values()))
        views: dict[str, MasterView] = {
            name: view for name, view in zip(asked, answers, strict=True) if view is not None
        }
        seen = MooncakeSeen(pods=tuple(pods), views=views, num_wanted=await self._num_stores())
        return look_at_mooncake(self.cache, seen)

    async def _num_stores(self) -> int:
        """A DaemonSet's are as many as there are machines for it."""
        assert self.cache.spec.mooncake is not None
        wanted = self.cache.spec.mooncake.stores
        assert wanted is not None
        if wanted.workload == "StatefulSet":
            return wanted.replicas
        found = await self._get("apps/v1", "DaemonSet", stores.stores_name(self.cache))
        return int(((found or {}).get("status") or {}).get("desiredNumberScheduled", 0))

    async def _external(self, address: str) -> Looked:
        """Any of several masters, or of an etcd's machines."""
        figures = Figures(endpoint=address)
        places = address.partition("://")[2] or address
        verdict = await self._reached([p.strip() for p in places.replace(";", ",").split(",")])
        return Looked(verdict=verdict, figures=figures)

    # --- NIXL ---------------------------------------------------------------------------------

    async def _nixl(self) -> Looked:
        store = self.cache.spec.nixl
        assert store is not None
        if store.store is not None:
            server, size = nixl_server(self.cache), num_bytes(store.store.segment_size)
            pods = [
                pod
                for pod in await self._pods()
                if pod["metadata"]["labels"].get(COMPONENT) == nixl_store.COMPONENT
            ]
            return look_at_server(pods, endpoint=server, capacity_bytes=size)
        if store.server is not None:
            verdict = await self._reached([store.server])
            return Looked(verdict=verdict, figures=Figures(endpoint=store.server))
        if store.volume is not None:
            return await self._volume(store.volume, "kvloop", store.capacity)
        return await self._bucket(store.endpoint or "", store.bucket or "")

    async def _bucket(self, endpoint: str, bucket: str) -> Looked:
        figures = Figures(endpoint=f"{endpoint.rstrip('/')}/{bucket}")
        store = self.cache.spec.nixl
        assert store is not None and store.credentials is not None
        if why := await self._missing(store.credentials.name, CREDENTIALS):
            return Looked(verdict=why, figures=figures)
        try:
            place = _place(endpoint)
        except ValueError as error:
            words = f"spec.nixl.endpoint: {error}, got {endpoint!r}; it must be http(s)://host:port"
            wrong = Verdict(status="False", reason="InvalidConfig", message=words)
            return Looked(verdict=wrong, figures=figures)
        return Looked(verdict=await self._reached([place]), figures=figures)

    # --- others -------------------------------------------------------------------------------

    async def _volume(self, volume: Volume, directory: str, capacity: str | None) -> Looked:
        name = volume.persistent_volume_claim
        if name is None:
            figures = _figures(f"hostPath:{volume.host_path}/{directory}", capacity)
            return Looked(verdict=volumes.NOT_OBSERVABLE, figures=figures)
        claim = await self._get("v1", "PersistentVolumeClaim", name)
        size = capacity or volumes.claimed_bytes(claim)
        figures = _figures(f"persistentVolumeClaim:{name}/{directory}", size)
        return Looked(verdict=volumes.of_claim(name, claim), figures=figures)

    async def _three_fs(self) -> Looked:
        store = self.cache.spec.hf3fs
        assert store is not None
        figures = _figures(f"{store.mount_path}/{store.directory}", store.capacity)
        verdict = volumes.NOT_OBSERVABLE
        if store.volume is not None:
            verdict = (await self._volume(store.volume, store.directory, None)).verdict
        if store.capacity is not None:
            verdict = with_janitor(verdict, await self._list("batch/v1", "Job", janitor.COMPONENT))
        return Looked(verdict=verdict, figures=figures)

    async def _dynamic(self) -> Looked:
        store = self.cache.spec.dynamic
        assert store is not None
        figures = Figures(endpoint=f"{store.module_path}:{store.class_name}")
        verdict = volumes.NOT_OBSERVABLE
        if (secret := store.config_secret) is not None:
            verdict = await self._missing(secret.name, (secret.key,)) or verdict
        if store.volume is not None and verdict.status != "False":
            verdict = (await self._volume(store.volume, "", None)).verdict
        return Looked(verdict=verdict, figures=figures)

    async def _zones(self, local: str, central: str) -> Looked:
        parts = {
            "local": (local, await self._ready_of(local)),
            "central": (central, await self._ready_of(central)),
        }
        return Looked(verdict=of_zones(parts), figures=Figures(endpoint=f"{local} + {central}"))

    # --- what is read -------------------------------------------------------------------------

    async def _ready_of(self, name: str) -> Condition | None:
        found = await self._get(API_VERSION, "SharedCache", name)
        return condition(conditions_of((found or {}).get("status")), "Ready")

    async def _reached(self, places: list[str]) -> Verdict:
        errors = []
        for place in places:
            host, _, port = place.rpartition(":")
            why = await self.probe.why_unreachable(host.strip("[]"), int(port))
            if not why:
                return Verdict(status="True", reason="Ready", message=f"{place} can be reached")
            errors.append(why)
        return Verdict(status="False", reason="Unreachable", message="; ".join(errors))

    async def _missing(self, name: str, keys: tuple[str, ...]) -> Verdict | None:
        secret = await self._get("v1", "Secret", name)
        if secret is None:
            words = f"there is no Secret {name} in this namespace"
            return Verdict(status="False", reason="SecretNotFound", message=words)
        lacking = [key for key in keys if key not in (secret.get("data") or {})]
        if lacking:
            words = f"Secret {name} has no key {', '.join(lacking)}"
            return Verdict(status="False", reason="SecretNotFound", message=words)
        return None

    async def _pods(self) -> list[Manifest]:
        labels = {"kvloop.dev/shc": self.cache.metadata.name}
        return await self.api.list("v1", "Pod", self.cache.metadata.namespace, labels)

    async def _list(self, api_version: str, kind: str, component: str) -> list[Manifest]:
        labels = {"kvloop.dev/shc": self.cache.metadata.name, COMPONENT: component}
        return await self.api.list(api_version, kind, self.cache.metadata.namespace, labels)

    async def _get(self, api_version: str, kind: str, name: str) -> Mapping[str, Any] | None:
        namespace = self.cache.metadata.namespace
        return await self.api.get(
            ObjectId(api_version=api_version, kind=kind, namespace=namespace, name=name)
        )


def _place(url: str) -> str:
    """host:port of a URL; ValueError where it names none."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not parts.hostname:
        raise ValueError("there is no host in it")
    return f"{parts.hostname}:{port}"


def _figures(endpoint: str, capacity: str | None) -> Figures:
    return Figures(
        endpoint=endpoint, capacity_bytes=num_bytes(capacity) if capacity is not None else None
    )

"""A SharedCache in a cluster of memory, and who answers there over the network."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from memory_api import MemoryApi
from shared_caches import SETTINGS, cache_manifest, pod

from kvloop.operator.caches.seen import MasterView
from kvloop.operator.controllers.base import Manifest, Result
from kvloop.operator.controllers.shared_cache import SharedCacheController
from kvloop.operator.names import LEADER

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SEGMENT = 4 << 30
LEASE = {"replicas": 2, "highAvailability": "lease"}
STORES = {"replicas": 2}


@dataclass
class Network:
    """Who answers, by address."""

    masters: dict[str, MasterView] = field(default_factory=dict)
    listening: set[str] = field(default_factory=set)

    async def master(self, host: str, port: int) -> MasterView | None:
        return self.masters.get(host)

    async def why_unreachable(self, host: str, port: int) -> str:
        place = f"{host}:{port}"
        return "" if place in self.listening else f"{place}: Connection refused"


@dataclass
class CacheWorld:
    """One SharedCache in a cluster."""

    manifest: Manifest
    api: MemoryApi = field(default_factory=MemoryApi)
    network: Network = field(default_factory=Network)

    def look(self) -> Result:
        """The status is kept, as the runtime does."""
        controller = SharedCacheController(SETTINGS, self.network, now=lambda: NOW)
        result = asyncio.run(controller.reconcile(self.manifest, self.api))
        self.manifest["status"] = dict(result.status)
        return result

    def ready(self) -> tuple[str, str, str]:
        """Status, reason and message after a look."""
        (condition,) = self.look().status["conditions"]
        return condition["status"], condition["reason"], condition["message"]

    def change(self, **part: Any) -> None:
        """A new generation of the spec."""
        metadata, spec = self.manifest["metadata"], self.manifest["spec"]
        metadata["generation"] += 1
        spec[spec["backend"]] = part

    def master(self, name: str, ip: str, *, leads: bool = False, capacity: int = 0) -> None:
        """A pod that is ready, and what it answers."""
        made = pod(name, "mooncake-master", podIP=ip)
        if leads:
            made["metadata"]["labels"][LEADER] = "true"
            view = MasterView(leads=True, capacity_bytes=capacity, used_bytes=capacity // 4)
            self.network.masters[ip] = view
        self.api.add(made)


def serving(**part: Any) -> CacheWorld:
    """Two masters, two stores, all well."""
    world = CacheWorld(cache_manifest("mooncake", **{"masters": LEASE, "stores": STORES, **part}))
    world.master("mc-master-0", "10.0.0.1", leads=True, capacity=2 * SEGMENT)
    world.master("mc-master-1", "10.0.0.2")
    for i in range(2):
        world.api.add(pod(f"mc-store-{i}", "mooncake-store"))
    return world

"""What runs for a SharedCache: masters, stores, memory servers, a janitor."""

from __future__ import annotations

from kvloop.operator.build.owned import owned
from kvloop.operator.build.shared_cache.janitor import build_janitor
from kvloop.operator.build.shared_cache.lease import build_lease
from kvloop.operator.build.shared_cache.masters import build_masters
from kvloop.operator.build.shared_cache.nixl_store import build_nixl_store
from kvloop.operator.build.shared_cache.stores import build_stores
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.settings import Settings
from kvloop.operator.types.shared_cache import SharedCache

__all__ = ["KIND", "build_shared_cache"]

KIND = "SharedCache"


def build_shared_cache(cache: SharedCache, settings: Settings) -> list[Manifest]:
    """Everything that is to be applied, in that order; empty where nothing is run for it."""
    manifests: list[Manifest] = []
    mooncake, nixl, hf3fs = cache.spec.mooncake, cache.spec.nixl, cache.spec.hf3fs
    if mooncake is not None and mooncake.external is None:
        if mooncake.masters.high_availability == "lease":
            manifests += build_lease(cache)
        manifests += build_masters(cache, settings)
        manifests += build_stores(cache, settings)
    if nixl is not None and nixl.store is not None:
        manifests += build_nixl_store(cache, settings)
    if hf3fs is not None and hf3fs.capacity is not None:
        manifests.append(build_janitor(cache, settings))
    return [owned(manifest, KIND, cache.metadata) for manifest in manifests]

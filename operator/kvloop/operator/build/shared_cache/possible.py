"""All that `build_shared_cache` may make for a cache of any spec, and that is of no use later."""

from __future__ import annotations

from collections.abc import Iterator

from kvloop.operator.build.shared_cache.frame import budget_version, cron_version
from kvloop.operator.build.shared_cache.janitor import janitor_name
from kvloop.operator.build.shared_cache.stores import stores_name
from kvloop.operator.connect.mooncake import master_service, peers_service
from kvloop.operator.connect.nixl import nixl_service
from kvloop.operator.controllers.base import ObjectId
from kvloop.operator.settings import Settings
from kvloop.operator.types.shared_cache import SharedCache


def possible(cache: SharedCache, settings: Settings) -> Iterator[ObjectId]:
    """Of the cache's backend, which never changes. Rights and Leases stay: they go with it."""
    masters, stores = master_service(cache), stores_name(cache)
    apps, policy, batch = "apps/v1", budget_version(settings), cron_version(settings)
    by_backend = {
        "mooncake": (
            (apps, "StatefulSet", masters),
            (apps, "StatefulSet", stores),
            (apps, "DaemonSet", stores),
            ("v1", "Service", masters),
            ("v1", "Service", peers_service(cache)),
            ("v1", "Service", stores),
            (policy, "PodDisruptionBudget", masters),
            (policy, "PodDisruptionBudget", stores),
        ),
        "nixl": (
            (apps, "StatefulSet", nixl_service(cache)),
            ("v1", "Service", nixl_service(cache)),
        ),
        "hf3fs": ((batch, "CronJob", janitor_name(cache)),),
    }
    for api_version, kind, name in by_backend.get(cache.spec.backend, ()):
        yield ObjectId(
            api_version=api_version, kind=kind, namespace=cache.metadata.namespace, name=name
        )

"""The janitor of a 3FS store, which has no bound of its own: a CronJob that evicts."""

from __future__ import annotations

import json

from kvloop.operator.build import pod
from kvloop.operator.build.shared_cache import frame
from kvloop.operator.connect.hf3fs import connect_hf3fs
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.quantity import num_bytes
from kvloop.operator.settings import Settings
from kvloop.operator.types.pods import PodSettings, Resources
from kvloop.operator.types.shared_cache import SharedCache, ThreeFs

COMPONENT = "janitor"
_TIMEOUT_S = 3600
_RESOURCES = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "2Gi"})


def build_janitor(cache: SharedCache, settings: Settings) -> Manifest:
    """Never two at a time; one that hangs is ended."""
    store = _store(cache)
    connection = connect_hf3fs(cache)
    template = frame.template(
        cache,
        settings,
        PodSettings(),
        component=COMPONENT,
        command=command(cache),
        resources=pod.resources(_RESOURCES),
        probes={},
        ports={},
        mounts=connection.mounts,
        volumes=connection.volumes,
        restartPolicy="Never",
    )
    template["metadata"]["labels"] |= connection.pod_labels
    if connection.pod_annotations:
        template["metadata"]["annotations"] = dict(connection.pod_annotations)
    job = {
        "metadata": {"labels": frame.cache_labels(cache, COMPONENT)},
        "spec": {"backoffLimit": 1, "activeDeadlineSeconds": _TIMEOUT_S, "template": template},
    }
    return {
        "apiVersion": frame.cron_version(settings),
        "kind": "CronJob",
        "metadata": frame.metadata(cache, janitor_name(cache), COMPONENT),
        "spec": {
            "schedule": store.janitor_schedule,
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": job,
        },
    }


def janitor_name(cache: SharedCache) -> str:
    """Of the CronJob."""
    return f"{cache.metadata.name}-janitor"


def command(cache: SharedCache) -> list[str]:
    """Evicts what was not used for longest. By POSIX calls: it reads names only."""
    store = _store(cache)
    assert store.capacity is not None
    config = {**connect_hf3fs(cache).extra_config, "io": "posix"}
    return [
        "kvloop",
        "cache",
        "evict",
        "--backend=hf3fs",
        f"--config={json.dumps(config, sort_keys=True)}",
        f"--to={num_bytes(store.capacity)}B",
    ]


def _store(cache: SharedCache) -> ThreeFs:
    assert cache.spec.hf3fs is not None
    return cache.spec.hf3fs

"""A controller that uses every call of the `Api`: what the runtime's tests run.

`spec.file.directory` of a SharedCache names its Deployment; one of another directory is removed.
"""

from __future__ import annotations

import secrets
from typing import Any

from kvloop.operator.build.owned import owned
from kvloop.operator.controllers.base import Api, Event, Manifest, ObjectId, Result
from kvloop.operator.names import labels
from kvloop.operator.settings import Settings
from kvloop.operator.types.base import Metadata


class TrialController:
    """Of SharedCaches with backend file."""

    kind = "SharedCache"

    def __init__(self, settings: Settings) -> None:
        self._requeue_s = settings.resync_s

    async def close(self) -> None:
        """Nothing runs beside its looks."""

    async def reconcile(self, resource: Manifest, api: Api) -> Result:
        """A Secret made once, a Deployment and a Service applied, older Deployments removed."""
        owner = Metadata.model_validate(resource["metadata"])
        directory = resource["spec"]["file"]["directory"]
        marks = labels(kind="shc", name=owner.name, component="trial")
        await api.create(_secret(owner, marks))
        await api.apply(_service(owner, marks))
        deployment = await api.apply(_deployment(owner, marks, directory))
        for other in await api.list("apps/v1", "Deployment", owner.namespace, marks):
            metadata = other["metadata"]
            if metadata["name"] != deployment["metadata"]["name"]:
                what = ObjectId(
                    api_version="apps/v1",
                    kind="Deployment",
                    namespace=owner.namespace,
                    name=metadata["name"],
                )
                await api.delete(what, uid=metadata["uid"])
        return Result(
            status=_status(owner, resource, directory),
            requeue_s=self._requeue_s,
            events=[Event(type="Normal", reason="Applied", message=f"directory {directory}")],
        )


def _status(owner: Metadata, resource: Manifest, directory: str) -> dict[str, Any]:
    """Equal for an equal resource, others' conditions kept."""
    there = (resource.get("status") or {}).get("conditions", [])
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Applied",
        "message": directory,
        "observedGeneration": owner.generation,
        "lastTransitionTime": owner.creation_timestamp,
    }
    others = [condition for condition in there if condition["type"] != "Ready"]
    return {"observedGeneration": owner.generation, "conditions": [ready, *others]}


def _secret(owner: Metadata, marks: dict[str, str]) -> Manifest:
    return _owned(
        owner,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{owner.name}-keys", "labels": marks},
            "stringData": {"key": secrets.token_hex(8)},
        },
    )


def _service(owner: Metadata, marks: dict[str, str]) -> Manifest:
    return _owned(
        owner,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": owner.name, "labels": marks},
            "spec": {
                "selector": marks,
                "ports": [{"name": "http", "port": 80, "targetPort": 80, "protocol": "TCP"}],
            },
        },
    )


def _deployment(owner: Metadata, marks: dict[str, str], directory: str) -> Manifest:
    container = {
        "name": "trial",
        "image": f"localhost/trial:{directory}",
        "env": [{"name": "DIRECTORY", "value": directory}],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
    }
    return _owned(
        owner,
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": f"{owner.name}-{directory}", "labels": marks},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": marks},
                "template": {"metadata": {"labels": marks}, "spec": {"containers": [container]}},
            },
        },
    )


def _owned(owner: Metadata, manifest: Manifest) -> Manifest:
    return owned(manifest, "SharedCache", owner)

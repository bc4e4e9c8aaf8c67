"""`controllers.base.Api` by the `kubernetes` client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from kvloop.operator.controllers.base import Manifest, ObjectId
from kvloop.operator.errors import ApiError
from kvloop.operator.kinds import Kind, kind_of
from kvloop.operator.names import FIELD_MANAGER
from kvloop.operator.runtime.applied import belongs_to_another, covers, digest_of, stamped
from kvloop.operator.runtime.calls import classify, count
from kvloop.operator.runtime.metrics import Metrics

PAGE = 500
"""Objects of one answer to a list."""
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
GOOD = dict.fromkeys((200, 201, 202), "object")


async def configuration(kubeconfig: Path | None) -> kubernetes_client.Configuration:
    """Of a file, or of the pod that this runs in. ValueError where there is neither."""
    found = kubernetes_client.Configuration()
    try:
        if kubeconfig is None:
            kubernetes_config.load_incluster_config(client_configuration=found)
        else:
            await kubernetes_config.load_kube_config(
                config_file=str(kubeconfig), client_configuration=found
            )
    except kubernetes_config.ConfigException as error:
        where = f"--kubeconfig {kubeconfig}" if kubeconfig else "no --kubeconfig, and not in a pod"
        raise ValueError(f"{where}: {error}") from error
    return found


class KubernetesApi:
    """Nothing is tried twice here: the caller looks again."""

    def __init__(
        self,
        configured: kubernetes_client.Configuration,
        *,
        timeout_s: float = 15.0,
        metrics: Metrics | None = None,
    ) -> None:
        self._client = kubernetes_client.ApiClient(configured)
        self._client.user_agent = FIELD_MANAGER
        self._timeout_s = timeout_s
        self._metrics = metrics or Metrics()
        self._sent: dict[ObjectId, tuple[str, str]] = {}

    async def close(self) -> None:
        """Its connections."""
        await self._client.close()

    async def get(self, what: ObjectId) -> Manifest | None:
        """See `Api`."""
        try:
            return await self.call("GET", _path(what))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, api_version: str, kind: str, namespace: str, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        """See `Api`; no namespace: of all."""
        path = kind_of(api_version, kind).path(namespace)
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={text}" for key, text in labels.items())
        found: list[Manifest] = []
        while True:
            page = await self.call("GET", path, query=query)
            named = {"apiVersion": api_version, "kind": kind}
            found += [{**named, **item} for item in page["items"]]
            if not (rest := page["metadata"].get("continue")):
                return found
            query["continue"] = rest

    async def apply(self, manifest: Manifest) -> Manifest:
        """See `Api`. With `metadata.resourceVersion`: only if the object is still that (409).

        An object of that name that has another owner is refused (409).
        """
        what, wanted = object_id(manifest), stamped(manifest)
        live = await self.get(what)
        if live is not None:
            if belongs_to_another(live, wanted):
                raise ApiError(f"{_words(what)} is there already and not ours", status=409)
            if self._is_there(what, live, wanted):
                return live
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        found = await self.call("PATCH", _path(what), query=query, body=wanted, content=APPLY)
        self._sent[what] = (digest_of(wanted) or "", found["metadata"]["resourceVersion"])
        return found

    async def create(self, manifest: Manifest) -> Manifest | None:
        """See `Api`."""
        what = object_id(manifest)
        path = _kind(what).path(what.namespace)
        try:
            return await self.call(
                "POST", path, query={"fieldManager": FIELD_MANAGER}, body=manifest
            )
        except ApiError as error:
            if error.status == 409:
                return None
            raise

    async def delete(self, what: ObjectId, *, uid: str | None = None) -> None:
        """See `Api`. Another object of that name is left alone where uid is given."""
        body: Manifest = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        self._sent.pop(what, None)
        try:
            await self.call("DELETE", _path(what), body=body)
        except ApiError as error:
            if error.status != 404 and not (uid is not None and error.status == 409):
                raise

    async def patch_status(self, what: ObjectId, status: Mapping[str, Any]) -> None:
        """See `Api`."""
        content = STRATEGIC if what.kind == "Pod" else MERGE
        await self.patch(what, {"status": dict(status)}, subresource="status", content=content)

    async def patch(
        self,
        what: ObjectId,
        body: Mapping[str, Any],
        *,
        subresource: str = "",
        content: str = MERGE,
    ) -> Manifest:
        """Merge into an object."""
        path = _kind(what).path(what.namespace, what.name, subresource)
        query = {"fieldManager": FIELD_MANAGER}
        return await self.call("PATCH", path, query=query, body=body, content=content)

    async def replace(self, manifest: Manifest) -> Manifest:
        """All of an object; 409 where it changed since it was read."""
        return await self.call(
            "PUT", _path(object_id(manifest)), query={"fieldManager": FIELD_MANAGER}, body=manifest
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
    ) -> Manifest:
        """One request, counted. ApiError unless it succeeded in time."""
        code: int | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                answer, code, _ = await self._client.call_api(
                    path,
                    method,
                    query_params=list((query or {}).items()),
                    header_params={"Accept": "application/json", "Content-Type": content},
                    body=body,
                    response_types_map=GOOD,
                    auth_settings=["BearerToken"],
                )
        except kubernetes_client.ApiException as error:
            code = error.status
            raise ApiError(_reason(method, path, error), status=error.status) from error
        except TimeoutError as error:
            raise ApiError(f"{method} {path}: no answer in {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, kubernetes_config.ConfigException) as error:
            raise ApiError(f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            count(self._metrics.api_calls, classify(method, path, query), code)
        found: Manifest = answer
        return found

    def _is_there(self, what: ObjectId, live: Manifest, wanted: Manifest) -> bool:
        """Untouched since we wrote it, or equal in all that we want."""
        digest, version = digest_of(wanted) or "", live["metadata"]["resourceVersion"]
        if digest_of(live) != digest:
            return False
        return self._sent.get(what) == (digest, version) or covers(live, _unguarded(wanted))


def object_id(manifest: Manifest) -> ObjectId:
    """Of a manifest."""
    metadata = manifest["metadata"]
    return ObjectId(
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
    )


def _unguarded(manifest: Manifest) -> Manifest:
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "resourceVersion"}
    return {**manifest, "metadata": metadata}


def _kind(what: ObjectId) -> Kind:
    return kind_of(what.api_version, what.kind)


def _path(what: ObjectId) -> str:
    return _kind(what).path(what.namespace, what.name)


def _words(what: ObjectId) -> str:
    return f"{what.kind} {what.namespace}/{what.name}"


def _reason(method: str, path: str, error: kubernetes_client.ApiException) -> str:
    """The API server's own words where it gave some."""
    try:
        said = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        said = error.reason
    return f"{method} {path}: {said} ({error.status})"

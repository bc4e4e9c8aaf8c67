"""The two things that an elected master asks its cluster's API for: its Lease, and a label."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

from kvloop.benchmark.outlets.in_cluster import InCluster
from kvloop.operator.names import LEADER
from kvloop.shared_cache.errors import KVLoopError

_MERGE = "application/merge-patch+json"
_LARGEST = 1 << 20


class LeaseError(KVLoopError):
    """The API refused, or did not answer in time."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; None: no answer."""


class LeaseApi(Protocol):
    """LeaseError where a call does not succeed in time; 409: the Lease is not that any more."""

    def read(self) -> dict[str, Any]:
        """The Lease."""

    def write(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        """Replace it, if it is still the one that was read."""

    def mark(self, pod: str, *, leads: bool) -> None:
        """Set or remove the label that Services select."""


class InClusterLease:
    """From within a pod."""

    def __init__(self, cluster: InCluster, namespace: str, name: str, timeout_s: float) -> None:
        self._cluster = cluster
        group = "/apis/coordination.k8s.io/v1"
        self._lease = f"{group}/namespaces/{quote(namespace)}/leases/{quote(name)}"
        self._pods = f"/api/v1/namespaces/{quote(namespace)}/pods"
        self._timeout_s = timeout_s

    def read(self) -> dict[str, Any]:
        """See `LeaseApi`."""
        return self._call("GET", self._lease)

    def write(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        """See `LeaseApi`."""
        return self._call("PUT", self._lease, lease)

    def mark(self, pod: str, *, leads: bool) -> None:
        """See `LeaseApi`."""
        body = {"metadata": {"labels": {LEADER: "true" if leads else None}}}
        self._call("PATCH", f"{self._pods}/{quote(pod)}", body, _MERGE)

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        try:
            request = urllib.request.Request(
                self._cluster.url + path,
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Authorization": f"Bearer {self._cluster.token}", "Content-Type": content},
            )
            trust = ssl.create_default_context(cafile=str(self._cluster.mount / "ca.crt"))
            with urllib.request.urlopen(request, timeout=self._timeout_s, context=trust) as answer:
                found: dict[str, Any] = json.loads(answer.read(_LARGEST))
                return found
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(_LARGEST).decode(errors="replace")
            raise LeaseError(f"{method} {path}: {error.code} {_reason(text)}", error.code) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise LeaseError(f"{method} {path}: {error or type(error).__name__}") from None


def _reason(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]

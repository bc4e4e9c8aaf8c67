"""Calls of the API server, as RBAC names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from prometheus_client import Counter

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request."""

    verb: str
    """get, list, watch, create, update, patch or delete."""
    group: str = ""
    resource: str = ""
    """Plural; empty: no resource, see `path`."""
    subresource: str = ""
    namespace: str = ""
    """Empty: of all, or of none."""
    path: str = ""
    """Of what is no resource, such as /version."""

    @property
    def what(self) -> str:
        """For people and metrics: deployments.apps, pods/status, /version."""
        if not self.resource:
            return self.path
        name = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{name}.{self.group}" if self.group else name


def classify(method: str, path: str, query: Mapping[str, str] | None = None) -> Call:
    """What the API server's authorizer makes of a request."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) > 2:
        group, rest = "", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, rest = parts[1], parts[3:]
    else:
        return Call(verb=method.lower(), path=path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return Call(
        verb=_verb(method, is_named=len(rest) > 1, query=query or {}),
        group=group,
        resource=rest[0],
        subresource=rest[2] if len(rest) > 2 else "",
        namespace=namespace,
    )


def count(counter: Counter, call: Call, code: int | None) -> None:
    """Into `kvloop_operator_api_calls_total`; no code: no answer."""
    counter.labels(call.verb, call.what, call.namespace, str(code or "none")).inc()


def _verb(method: str, *, is_named: bool, query: Mapping[str, str]) -> str:
    if method in ("GET", "HEAD"):
        if query.get("watch") in ("true", "1"):
            return "watch"
        return "get" if is_named else "list"
    return VERBS[method]

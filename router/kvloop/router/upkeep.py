"""Endpoints for nodes, probes and operators of the router."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kvloop.router.body import read_body
from kvloop.router.config import check_node_url
from kvloop.router.context import context_of
from kvloop.router.errors import ApiError, BadRequest
from kvloop.router.replies import json_reply
from kvloop.router.service import Service
from kvloop.router.tenants import bearer, equal_secrets
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.wire import SECRET_HEADER, NodeRecord

_MAX_HEARTBEAT_BYTES = 64 << 10


async def heartbeat(service: Service, request: Request) -> Response:
    """A node says that it lives; 401 without the node secret, where one is configured."""
    secret = service.node_secret
    if secret is not None and not equal_secrets(request.headers.get(SECRET_HEADER), secret):
        raise ApiError(401, f"missing or wrong {SECRET_HEADER}", param=SECRET_HEADER)
    body = await read_body(request, _MAX_HEARTBEAT_BYTES)
    try:
        record = msgspec.json.decode(body, type=NodeRecord)
        check_node_url("url", record.url)
    except (msgspec.DecodeError, UnicodeDecodeError, ConfigError) as error:
        raise BadRequest(f"not a node record: {error}") from None
    service.registry.update(record)
    return Response(status_code=204)


async def models(service: Service, request: Request) -> Response:
    """The one model that is served; none while no node was seen."""
    context_of(service, request)
    name = service.model.name
    card = {
        "id": name,
        "object": "model",
        "created": service.started_at,
        "owned_by": "kvloop",
        "max_model_len": service.model.context_length,
    }
    return json_reply({"object": "list", "data": [card] if name else []})


async def one_model(service: Service, request: Request) -> Response:
    """The same, by name; 404 for another."""
    context_of(service, request)
    name = request.path_params["name"]
    service.model.check_name(name)
    card = {"id": name, "object": "model", "created": service.started_at, "owned_by": "kvloop"}
    return json_reply(card)


async def healthz(service: Service, request: Request) -> Response:
    """The process answers."""
    return json_reply({"status": "ok"})


async def readyz(service: Service, request: Request) -> Response:
    """200 if requests can be served, else 503 and what is missing."""
    missing = service.missing()
    return json_reply({"ready": not missing, "missing": missing}, 503 if missing else 200)


async def metrics(service: Service, request: Request) -> Response:
    """Prometheus text."""
    text = service.metrics.render(service.registry.states())
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def server_info(service: Service, request: Request) -> Response:
    """What the router knows; no secrets."""
    nodes = [
        {
            "state": state,
            **msgspec.to_builtins(record),
            "kv_events": service.events.status(record.incarnation),
        }
        for record, state in service.registry.states()
    ]
    return json_reply(
        {
            "role": "router",
            "model": service.model.name,
            "max_context": service.model.context_length,
            "missing": service.missing(),
            "nodes": nodes,
            "problems": service.registry.problems,
            "max_queued": service.config.max_queued,
            "request_timeout_s": service.config.request_timeout_s,
            "index_pages": len(service.index),
            "history": service.chats.status(),
        }
    )


async def flush_cache(service: Service, request: Request) -> Response:
    """Forget routed prefixes and remembered answers; needs the admin key."""
    require_admin(service, request)
    forgotten = {"index_pages": service.index.clear(), "history": service.chats.history.clear()}
    return json_reply(forgotten)


def require_admin(service: Service, request: Request) -> None:
    """Raise ApiError unless the caller has the admin key: 403 where none is configured, 401."""
    expected = service.config.admin_api_key
    if expected is None:
        raise ApiError(403, "admin calls are refused: start the router with --admin-api-key")
    if not equal_secrets(bearer(request.headers.get("authorization")), expected):
        raise ApiError(401, "missing or wrong admin API key", param="Authorization")

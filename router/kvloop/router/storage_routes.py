"""The router's part of the admin API of the shared cache: its records move as the nodes' pages."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from kvloop.router.body import read_body
from kvloop.router.errors import BadRequest
from kvloop.router.replies import json_reply
from kvloop.router.service import Service
from kvloop.router.upkeep import require_admin
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.storage_change import parse_storage_change, parse_timeout

STORAGE_PATH = "/hicache/storage-backend"
_MAX_BODY_BYTES = 64 << 10


async def storage_status(service: Service, request: Request) -> Response:
    """How the store of the router's records stands."""
    require_admin(service, request)
    return json_reply(service.storage.status())


async def attach_storage(service: Service, request: Request) -> Response:
    """Keep the records in another store from now on."""
    require_admin(service, request)
    try:
        change = parse_storage_change(await read_body(request, _MAX_BODY_BYTES), "router")
    except ConfigError as error:
        raise BadRequest(str(error)) from None
    return json_reply(await service.storage.attach(change, service.chats))


async def detach_storage(service: Service, request: Request) -> Response:
    """Share no more records."""
    require_admin(service, request)
    try:
        timeout_s = parse_timeout(request.query_params, 5.0)
    except ConfigError as error:
        raise BadRequest(str(error)) from None
    return json_reply(await service.storage.detach(timeout_s, service.chats))

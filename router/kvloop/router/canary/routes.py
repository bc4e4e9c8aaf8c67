"""POST and GET /canary."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kvloop.router.replies import json_reply
from kvloop.router.service import Service
from kvloop.router.upkeep import require_admin


async def run_canary(service: Service, request: Request) -> Response:
    """Run a canary and tell what it found; needs the admin key.

    One at a time: who asks while one is under way gets what that one finds.
    """
    require_admin(service, request)
    return json_reply(msgspec.to_builtins(await service.canary.run("demand")))


async def last_canary(service: Service, request: Request) -> Response:
    """What the last canary found, and whether one is under way; no key, and no secret inside."""
    canary = service.canary
    return json_reply({"running": canary.is_running, "last": msgspec.to_builtins(canary.last)})

"""Reading a request's body, bounded in size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from kvloop.router.errors import ApiError

_READ_TIMEOUT_S = 30.0
_DRAIN_FACTOR = 4
"""A body up to this many limits is read to its end, so that the client gets to see the 413."""


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body; raises ApiError 413 above the limit, 408 if it takes too long to come."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > _DRAIN_FACTOR * limit_bytes:
        raise _too_large(limit_bytes)
    try:
        async with asyncio.timeout(_READ_TIMEOUT_S):
            return await _read(request, limit_bytes)
    except TimeoutError:
        raise ApiError(408, "the request body took too long to arrive", code="timeout") from None
    except ClientDisconnect:
        raise ApiError(499, "the client closed the connection", code="client_gone") from None


async def _read(request: Request, limit_bytes: int) -> bytes:
    kept = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit_bytes:
            kept += chunk
        elif size > _DRAIN_FACTOR * limit_bytes:
            break
        else:
            kept.clear()
    if size > limit_bytes:
        raise _too_large(limit_bytes)
    return bytes(kept)


def _too_large(limit_bytes: int) -> ApiError:
    message = f"the request body is larger than {limit_bytes} bytes"
    return ApiError(413, message, code="request_too_large")

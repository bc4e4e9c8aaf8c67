"""The body of an answer, as a whole but not without end."""

from __future__ import annotations

import aiohttp


async def read_body(reply: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """All of it, however many pieces it comes in. ValueError where it is longer."""
    raw = b""
    async for chunk in reply.content.iter_any():
        raw += chunk
        if len(raw) > max_bytes:
            raise ValueError(f"the answer is longer than {max_bytes} bytes")
    return raw

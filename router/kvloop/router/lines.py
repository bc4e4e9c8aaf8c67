"""Lines of a body that arrives piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

MAX_LINE_BYTES = 16 << 20


class LineReader:
    """Reads lines with a deadline; a read that timed out loses nothing."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._buffer = bytearray()
        self._scanned = 0

    async def read(
        self, deadline: float, stall_s: float, is_alive: Callable[[], bool]
    ) -> bytes | None:
        """Next line, or None at the end of the body.

        Raises TimeoutError at `deadline` (loop time), and ConnectionError when nothing came for
        `stall_s` and the peer is not alive, or when the body ends within a line.
        """
        while True:
            line = self._take_line()
            if line is not None:
                return line
            chunk = await self._read_some(deadline, stall_s, is_alive)
            if not chunk:
                if self._buffer:
                    raise ConnectionError("the answer was cut off within a line")
                return None
            self._buffer += chunk
            if len(self._buffer) > MAX_LINE_BYTES:
                raise ConnectionError(f"a line of the answer exceeds {MAX_LINE_BYTES} bytes")

    async def _read_some(
        self, deadline: float, stall_s: float, is_alive: Callable[[], bool]
    ) -> bytes:
        loop = asyncio.get_running_loop()
        while True:
            until = min(deadline, loop.time() + stall_s)
            try:
                async with asyncio.timeout_at(until):
                    return await self._content.readany()
            except TimeoutError:
                if loop.time() >= deadline:
                    raise
                if not is_alive():
                    raise ConnectionError(f"silent for {stall_s:g} s and not heard of") from None

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        return line

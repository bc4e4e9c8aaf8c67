"""The sockets by which the router hears one node's KV events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import zmq
import zmq.asyncio
from zmq.utils import z85

from kvloop.shared_cache.kv_events import END, EventSource, curve_secret

_MAX_MESSAGE_BYTES = 16 << 20
_WAITING_MESSAGES = 1000
"""That may wait here; a router that is slower loses some, and asks for their replay."""

Context = zmq.asyncio.Context
Message = tuple[int, bytes]
"""Its number, and its batch."""


class EventSocket:
    """Connects at once, and again by itself; `close` must be called."""

    def __init__(self, context: Context, source: EventSource, secret: str | None) -> None:
        self._context, self._source = context, source
        self._secret = secret if source.is_encrypted else None
        self._sub = self._connected(zmq.SUB, source.endpoint)
        self._replay: zmq.asyncio.Socket | None = None

    async def wait(self, timeout_s: float) -> bool:
        """Whether a message is there, or came in time."""
        return bool(await self._sub.poll(int(timeout_s * 1000)))

    async def receive(self) -> Message | None:
        """The next message, which must be there; None for what is no message."""
        return _message(await self._sub.recv_multipart())

    async def replay(self, first: int, timeout_s: float) -> AsyncIterator[Message]:
        """All messages from this number on that the node still has; raises TimeoutError."""
        if self._replay is None:
            self._replay = self._connected(zmq.DEALER, self._source.replay_endpoint)
        socket = self._replay
        await socket.send_multipart([b"", first.to_bytes(8, "big")])
        is_whole = False
        try:
            while True:
                if not await socket.poll(int(timeout_s * 1000)):
                    raise TimeoutError(f"no replay within {timeout_s} s")
                frames = await socket.recv_multipart()
                if len(frames) > 1 and frames[-2] == END:
                    is_whole = True
                    return
                message = _message(frames)
                if message is not None:
                    yield message
                await asyncio.sleep(0)
        finally:
            if not is_whole:  # what is left of its answer must not pass for the next one
                socket.close(linger=0)
                self._replay = None

    def close(self) -> None:
        """Drop what waits."""
        self._sub.close(linger=0)
        if self._replay is not None:
            self._replay.close(linger=0)

    def _connected(self, kind: int, endpoint: str) -> zmq.asyncio.Socket:
        socket = self._context.socket(kind)
        try:
            self._configure(socket, endpoint)
            if kind == zmq.SUB:
                socket.subscribe(b"")
            socket.connect(endpoint)
        except Exception:
            socket.close(linger=0)
            raise
        return socket

    def _configure(self, socket: zmq.asyncio.Socket, endpoint: str) -> None:
        socket.linger, socket.rcvhwm, socket.sndhwm = 0, _WAITING_MESSAGES, 8
        socket.maxmsgsize, socket.ipv6 = _MAX_MESSAGE_BYTES, "[" in endpoint
        socket.reconnect_ivl_max = 5000
        if self._secret is not None:
            own = z85.encode(curve_secret(self._secret, "subscriber"))
            node = z85.encode(curve_secret(self._secret, "publisher"))
            socket.curve_secretkey, socket.curve_publickey = own, zmq.curve_public(own)
            socket.curve_serverkey = zmq.curve_public(node)


def _message(frames: list[bytes]) -> Message | None:
    """Its last two frames: live ones have a topic before them, old replays have not."""
    if len(frames) < 2 or len(frames[-2]) != 8:
        return None
    return int.from_bytes(frames[-2], "big"), frames[-1]

"""Asks prefill nodes over HTTP, and gets the acknowledgement of attempts that were given up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import aiohttp
import msgspec

from kvloop.engine.messages import (
    AskPrefill,
    AttemptQuiet,
    GiveUp,
    HandOffBroken,
    HandOffEvent,
    ToEngine,
)
from kvloop.shared_cache.wire import (
    REQUEST_ID_HEADER,
    CancelReply,
    CancelRequest,
    PrefillDone,
    Refused,
    decode_prefill_event,
)

log = logging.getLogger("kvloop.decode")
_CONNECT_S = 3.0
_CANCEL_S = 12.0
_RETRY_S = (0.1, 0.5, 1.0, 2.0, 5.0)
_SETTLE_S = 1.0
"""After a sender's death, what its last packets may still take to reach our memory."""
_REFUSED_TO_BE_DEAD = 3
_UNREACHED_TO_BE_DEAD_S = 1200.0
"""An address, such as a deleted pod's, that takes no connection for so long beyond the attempt's
own time: kernels have given up what was open before."""
_LINE_BYTES = 1 << 22


class PrefillClient:
    """Tells the engine what becomes of each attempt."""

    def __init__(self, http: aiohttp.ClientSession, tell: Callable[[ToEngine], None]) -> None:
        self._http, self._tell = http, tell
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._incarnations: dict[str, str] = {}
        self._ends_at: dict[str, float] = {}

    async def ask(self, ask: AskPrefill) -> None:
        """Read one attempt's stream to its end."""
        attempt = ask.request.attempt
        task = asyncio.current_task()
        assert task is not None
        self._asking[attempt] = task
        self._ends_at[attempt] = time.monotonic() + ask.request.timeout_s
        try:
            reason = await self._stream(ask)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
        except asyncio.CancelledError:
            return
        finally:
            del self._asking[attempt]
        if reason is not None:
            self._tell(HandOffBroken(ask.request.request_id, attempt, reason))

    async def _stream(self, ask: AskPrefill) -> str | None:
        """None when the last event came, else what went wrong."""
        request = ask.request
        timeout = aiohttp.ClientTimeout(total=request.timeout_s + 10, sock_connect=_CONNECT_S)
        async with self._http.post(
            f"{ask.url}/kvloop/prefill",
            data=msgspec.json.encode(request),
            headers={REQUEST_ID_HEADER: request.request_id},
            timeout=timeout,
            read_bufsize=_LINE_BYTES,
        ) as reply:
            if reply.status != 200:
                return f"HTTP {reply.status}: {(await reply.text())[:200]}"
            self._incarnations[request.attempt] = reply.headers.get("X-Kvloop-Incarnation", "")
            async for line in reply.content:
                event = decode_prefill_event(line)
                self._tell(
                    HandOffEvent(request.request_id, request.attempt, event, time.monotonic())
                )
                if isinstance(event, PrefillDone | Refused):
                    self._incarnations.pop(request.attempt, None)
                    self._ends_at.pop(request.attempt, None)
                    return None
        return "the stream ended before its last event"

    async def give_up(self, message: GiveUp) -> None:
        """Stop reading; ask until the sender is quiet or known dead, then tell the engine."""
        task = self._asking.get(message.attempt)
        if task is not None:
            task.cancel()
        expected = self._incarnations.pop(message.attempt, "") or message.incarnation
        num_refused, tries, dead_at = 0, 0, self._dead_at(message.attempt)
        while True:
            try:
                how = await self._cancel(message, expected)
                num_refused, dead_at = 0, time.monotonic() + _UNREACHED_TO_BE_DEAD_S
            except aiohttp.ConnectionTimeoutError:
                how = None
            except aiohttp.ClientConnectorError as error:
                # A node's engine dies with its front: nobody listening is nobody writing.
                num_refused += isinstance(error.os_error, ConnectionRefusedError)
                how = "dead" if num_refused >= _REFUSED_TO_BE_DEAD else None
            except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
                # It listens: a process that was stopped may yet go on.
                how, dead_at = None, time.monotonic() + _UNREACHED_TO_BE_DEAD_S
            if how is None and time.monotonic() >= dead_at:
                log.warning("%s: no connection for %g s", message.url, _UNREACHED_TO_BE_DEAD_S)
                how = "dead"
            if how is not None:
                break
            await asyncio.sleep(_RETRY_S[min(tries, len(_RETRY_S) - 1)])
            tries += 1
        if how == "dead":
            await asyncio.sleep(_SETTLE_S)
        self._tell(AttemptQuiet(message.attempt, how))

    def _dead_at(self, attempt: str) -> float:
        now = time.monotonic()
        return max(now, self._ends_at.pop(attempt, now)) + _UNREACHED_TO_BE_DEAD_S

    async def _cancel(self, message: GiveUp, expected: str) -> str | None:
        async with self._http.post(
            f"{message.url}/kvloop/cancel",
            data=msgspec.json.encode(
                CancelRequest(request_id=message.request_id, attempt=message.attempt)
            ),
            timeout=aiohttp.ClientTimeout(total=_CANCEL_S, sock_connect=_CONNECT_S),
        ) as reply:
            if reply.status != 200:
                return None
            said = msgspec.json.decode(await reply.read(), type=CancelReply)
        if expected and said.incarnation != expected:
            return "dead"
        return "acknowledged" if said.quiet else None

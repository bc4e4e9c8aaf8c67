"""HTTP calls of nodes and routers: each has a deadline, each failure is told in words."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import msgspec

from kvloop.operator.errors import NodeError
from kvloop.operator.nodes.answers import (
    Answer,
    CanaryReport,
    LastCanary,
    Node,
    NodeInfo,
    RouterInfo,
    StorageStatus,
    words,
)
from kvloop.operator.nodes.body import read_body
from kvloop.operator.nodes.metrics import PromptTokens, Samples, parse_metrics, prompt_tokens

A = TypeVar("A", bound=Answer)
STORAGE_PATH = "/hicache/storage-backend"
_MAX_BYTES = 8 << 20
_ATTACH_S = 20.0
"""A node answers a PUT after its engine's turn (10 s) and 3 s of opening, at most."""


class NodeClient:
    """Use it in `async with`; URLs are `http://HOST:PORT`.

    Every call raises NodeError where no answer came in time, or another than it should.
    """

    def __init__(self, *, admin_key: str | None = None, timeout_s: float = 5.0) -> None:
        """`admin_key` goes with admin calls only; `timeout_s` is for one plain call."""
        self.admin_key = admin_key
        self._headers = {"Authorization": f"Bearer {admin_key}"} if admin_key else {}
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> NodeClient:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def is_ready(self, url: str) -> bool:
        """What /readyz says; False, too, where nobody answers."""
        try:
            await self._call("GET", url, "/readyz")
        except NodeError:
            return False
        return True

    async def storage_status(self, url: str) -> StorageStatus:
        """What is attached to a prefill or decode node, or a router."""
        return await self._get(url, STORAGE_PATH, StorageStatus, admin=True)

    async def attach(self, url: str, body: Mapping[str, Any]) -> StorageStatus:
        """Attach or replace; the store may still be `attaching`, or `open`, at the answer."""
        raw = await self._call(
            "PUT", url, STORAGE_PATH, admin=True, body=body, timeout_s=_ATTACH_S + self._timeout_s
        )
        return _read(url, STORAGE_PATH, raw, StorageStatus)

    async def detach(self, url: str, drain_s: float = 5.0) -> StorageStatus:
        """Let running calls end for so long, and close; nothing changes where none is attached."""
        raw = await self._call(
            "DELETE",
            url,
            f"{STORAGE_PATH}?timeout_s={drain_s:g}",
            admin=True,
            timeout_s=drain_s + _ATTACH_S,
        )
        return _read(url, STORAGE_PATH, raw, StorageStatus)

    async def server_info(self, url: str) -> Node:
        """Of a prefill or decode node; NodeError while it starts."""
        return (await self._get(url, "/server_info", NodeInfo)).node

    async def router_info(self, url: str) -> RouterInfo:
        """Of a router: the nodes that it knows, with states and loads."""
        return await self._get(url, "/server_info", RouterInfo)

    async def canary_last(self, url: str) -> LastCanary:
        """What a router's last canary found; costs nothing."""
        return await self._get(url, "/canary", LastCanary)

    async def run_canary(self, url: str, timeout_s: float = 60.0) -> CanaryReport:
        """Have a router run one, or wait for the one under way; it takes `timeout_s` at most."""
        wait_s = timeout_s + self._timeout_s
        raw = await self._call("POST", url, "/canary", admin=True, timeout_s=wait_s)
        return _read(url, "/canary", raw, CanaryReport)

    async def metrics(self, url: str) -> Samples:
        """What Prometheus would scrape."""
        raw = await self._call("GET", url, "/metrics")
        try:
            return parse_metrics(raw.decode())
        except (ValueError, KeyError, IndexError) as error:
            raise NodeError(f"{url}/metrics is no Prometheus text: {error}") from None

    async def prompt_tokens(self, url: str) -> PromptTokens:
        """Of a router: prompt tokens of its clients by source."""
        return prompt_tokens(await self.metrics(url))

    # --- one call ---------------------------------------------------------------------------

    async def _get(self, url: str, path: str, kind: type[A], *, admin: bool = False) -> A:
        return _read(url, path, await self._call("GET", url, path, admin=admin), kind)

    async def _call(
        self,
        method: str,
        url: str,
        path: str,
        *,
        admin: bool = False,
        body: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """The answer's bytes; its query is left out of errors, its body never in them."""
        assert self._session is not None, "use the client in `async with`"
        where, limit_s = f"{method} {url}{path.partition('?')[0]}", timeout_s or self._timeout_s
        try:
            async with self._session.request(
                method,
                f"{url.rstrip('/')}{path}",
                json=body,
                headers=self._headers if admin else {},
                timeout=aiohttp.ClientTimeout(total=limit_s),
                allow_redirects=False,
            ) as reply:
                raw = await read_body(reply, _MAX_BYTES)
        except TimeoutError:
            raise NodeError(f"{where}: no answer within {limit_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NodeError(f"{where}: {str(error) or type(error).__name__}") from None
        if reply.status >= 300:
            raise NodeError(f"{where}: HTTP {reply.status}: {words(raw)}", status=reply.status)
        return raw


def _read(url: str, path: str, raw: bytes, kind: type[A]) -> A:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise NodeError(f"{url}{path} is not as kvloop answers: {error}") from None

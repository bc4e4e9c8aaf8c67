"""/healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from kvloop.operator.runtime.metrics import Metrics

Problems = Callable[[], list[str]]
"""What is wrong now; empty: nothing."""


@dataclass(slots=True, kw_only=True)
class Checks:
    """Filled as the parts start, emptied as they end."""

    alive: list[Problems] = field(default_factory=list)
    """A restart would help."""
    ready: list[Problems] = field(default_factory=list)
    """It would not."""


@asynccontextmanager
async def serving(port: int, checks: Checks, metrics: Metrics) -> AsyncIterator[int]:
    """Yields the port. 0 is any, of 127.0.0.1 only: two families would get two."""
    app = web.Application()
    app.router.add_get("/healthz", _answer(lambda: checks.alive))
    app.router.add_get("/readyz", _answer(lambda: checks.ready))

    async def show(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/metrics", show)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, None if port else "127.0.0.1", port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _answer(
    checks: Callable[[], list[Problems]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        wrong = [problem for check in checks() for problem in check()]
        return web.Response(text="\n".join(wrong) or "ok", status=503 if wrong else 200)

    return answer

"""The router as an ASGI application, and as a process."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from kvloop.router import upkeep
from kvloop.router.canary.routes import last_canary, run_canary
from kvloop.router.chat import chat_completions
from kvloop.router.completions import completions
from kvloop.router.config import RouterConfig
from kvloop.router.errors import ApiError
from kvloop.router.generate import generate
from kvloop.router.replies import error_reply
from kvloop.router.scope import RequestScope
from kvloop.router.service import Service
from kvloop.router.storage_routes import (
    STORAGE_PATH,
    attach_storage,
    detach_storage,
    storage_status,
)
from kvloop.router.tokenizer import leave_torch_out
from kvloop.shared_cache.errors import ConfigError

log = logging.getLogger(__name__)

Endpoint = Callable[[Service, Request], Awaitable[Response]]

ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("POST", "/v1/chat/completions", chat_completions),
    ("POST", "/v1/completions", completions),
    ("POST", "/generate", generate),
    ("GET", "/v1/models", upkeep.models),
    ("GET", "/v1/models/{name:path}", upkeep.one_model),
    ("GET", "/healthz", upkeep.healthz),
    ("GET", "/readyz", upkeep.readyz),
    ("GET", "/metrics", upkeep.metrics),
    ("GET", "/server_info", upkeep.server_info),
    ("POST", "/flush_cache", upkeep.flush_cache),
    ("POST", "/canary", run_canary),
    ("GET", "/canary", last_canary),
    ("POST", "/kvloop/heartbeat", upkeep.heartbeat),
    ("GET", STORAGE_PATH, storage_status),
    ("PUT", STORAGE_PATH, attach_storage),
    ("DELETE", STORAGE_PATH, detach_storage),
)


def build_app(config: RouterConfig) -> FastAPI:
    """The application; its lifespan owns tasks and connections. Raises ConfigError."""
    service = Service(config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(title="kvloop router", lifespan=lifespan, openapi_url=None)
    app.state.service = service
    for method, path, endpoint in ROUTES:
        app.add_route(path, _bound(endpoint, service), methods=[method])
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    paths = frozenset(path for _, path, _ in ROUTES if "{" not in path)
    app.add_middleware(
        RequestScope,
        metrics=service.metrics,
        endpoints=paths,
        is_stopping=lambda: service.is_stopping,
    )
    return app


def run_router(config: RouterConfig) -> None:
    """Serve until SIGINT or SIGTERM; raises ConfigError, also for an address in use."""
    app = build_app(config)
    with _bind(config.host, config.port) as listener:
        leave_torch_out()
        host, port = listener.getsockname()[:2]
        log.info("router listens at http://%s:%d", host, port)
        settings = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(config.finish_timeout_s),
        )
        _Server(settings, app.state.service).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Told to stop it goes on for `settle_s`, without keeping connections, before it closes."""

    def __init__(self, settings: uvicorn.Config, service: Service) -> None:
        super().__init__(settings)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.is_stopping = True
        await asyncio.sleep(self._service.config.settle_s)
        await super().shutdown(sockets)


def _bound(endpoint: Endpoint, service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        return await endpoint(service, request)

    return handle


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_reply(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path}"
    return error_reply(ApiError(error.status_code, message))


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        raise ConfigError(
            f"--port: cannot listen at {host}:{port}: {error.strerror or error}; choose another"
        ) from None
    return listener

"""A node's HTTP front: what prefill and decode have in common."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response

from kvloop.engine.engine_client import EngineClient
from kvloop.engine.event_config import events_config
from kvloop.engine.heartbeat import Heartbeats, RouterAddress
from kvloop.engine.messages import Hello, ToFront
from kvloop.engine.node_config import NodeConfig
from kvloop.engine.page_check_route import PageCheckRoute
from kvloop.engine.replies import error_response, json_response, raw_json
from kvloop.engine.storage_routes import StorageRoutes
from kvloop.shared_cache.errors import ConfigError, KVLoopError
from kvloop.shared_cache.wire import SECRET_HEADER, NodeRecord

__all__ = ["NodeFront", "error_response", "json_response", "run_front"]

log = logging.getLogger("kvloop.node")
_CALL_TIMEOUT = aiohttp.ClientTimeout(total=5)


class NodeFront:
    """Subclasses add their routes and take their engine's messages."""

    engine_module: str

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.secret = config.node_secret()
        # The engine would say it only when the model is loaded.
        events_config(config.kv_events_config, config.host, has_secret=self.secret is not None)
        self.engine: EngineClient
        self.http: aiohttp.ClientSession
        self.hello: Hello | None = None
        self.error: KVLoopError | None = None
        self.app = FastAPI(lifespan=self._lifespan, docs_url=None, redoc_url=None, openapi_url=None)
        self.app.add_exception_handler(KVLoopError, _engine_silent)
        self.server: uvicorn.Server | None = None
        self.is_stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._add_routes()

    def on_message(self, message: ToFront) -> None:
        """A message of the engine's own accord."""
        raise AssertionError(message)

    def spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Run a task that the front owns: its failure is logged, its end is with the front's."""
        task = asyncio.ensure_future(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def node_headers(self) -> dict[str, str]:
        """Headers of calls to other nodes."""
        return {SECRET_HEADER: self.secret} if self.secret else {}

    def is_node(self, request: Request) -> bool:
        """Whether the caller knows the secret that nodes share."""
        given = request.headers.get(SECRET_HEADER, "")
        return self.secret is None or hmac.compare_digest(given, self.secret)

    def record(self) -> NodeRecord | None:
        """What the router is told; None until the engine is ready."""
        if self.hello is None:
            return None
        return NodeRecord(
            url=self.config.url,
            role=self.config.role,
            incarnation=self.hello.incarnation,
            namespace=self.hello.namespace,
            generation=self.config.generation,
            zone=self.config.zone,
            model=self.config.served_model_name or self.config.model,
            model_path=self.hello.model_path,
            page_size=self.config.page_size,
            max_context=self.hello.max_context,
            ready=not self.is_stopping,
            load=self.engine.load,
            events=self.hello.events,
        )

    # --- life -------------------------------------------------------------------------------

    @property
    def is_serving(self) -> bool:
        """The engine is ready, and nobody has told the node to stop."""
        return self.hello is not None and not self.is_stopping

    async def before_close(self) -> None:
        """Runs when the node was told to stop, before its port closes."""

    def end_streams(self) -> None:
        """The engine is gone: let no response wait for it."""

    @asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        self.engine = EngineClient(self.config, self.engine_module, self.on_message)
        self.http = aiohttp.ClientSession(
            headers=self.node_headers(), connector=aiohttp.TCPConnector(limit=0)
        )
        self.engine.start()
        self.spawn(self.engine.read())
        self.spawn(self._await_engine())
        self.spawn(self._watch_engine())
        for router in self.config.router:
            self.spawn(Heartbeats(router, self._heartbeat).run())
        try:
            yield
        finally:
            self.is_stopping = True
            await self.engine.stop()
            for task in list(self._tasks):
                task.cancel()
            await self.http.close()

    async def _await_engine(self) -> None:
        try:
            self.hello = await self.engine.hello
        except KVLoopError as error:
            self._fail(error)
            return
        log.info("ready at %s, namespace %s", self.config.url, self.hello.namespace[:12])

    async def _watch_engine(self) -> None:
        status = await self.engine.wait_exit()
        if not self.is_stopping:
            self._fail(KVLoopError(f"the engine process ended with status {status}"))
        self.end_streams()

    def _fail(self, error: KVLoopError) -> None:
        """A node without its engine is of no use: end, so that a supervisor starts a new one."""
        self.error = self.error or error
        if self.server is not None:
            self.server.should_exit = True

    async def _heartbeat(self, router: RouterAddress) -> None:
        record = self.record()
        if record is None:
            return
        is_tls = router.url.startswith("https:")
        async with self.http.post(
            f"{router.url}/kvloop/heartbeat",
            data=msgspec.json.encode(record),
            headers={"Host": router.host},
            server_hostname=urlsplit(f"//{router.host}").hostname if is_tls else None,
            timeout=_CALL_TIMEOUT,
        ) as reply:
            if reply.status >= 400:
                said = await reply.text()
                log.warning("router %s refuses the heartbeat: %s", router.url, said)

    # --- routes -----------------------------------------------------------------------------

    def _add_routes(self) -> None:
        self.app.get("/healthz")(self._healthz)
        self.app.get("/readyz")(self._readyz)
        self.app.get("/metrics")(self._metrics)
        self.app.get("/server_info")(self._server_info)
        self.app.post("/flush_cache")(self._flush_cache)
        StorageRoutes(
            self.config.role,
            lambda: self.engine,
            lambda request: self._admin_refusal(request) or self._unready(),
        ).add_to(self.app)
        PageCheckRoute(self.config, lambda: self.engine, self._node_refusal).add_to(self.app)

    async def _healthz(self) -> Response:
        return json_response({"status": "ok"})

    async def _readyz(self) -> Response:
        if self.hello is None:
            return json_response({"status": "starting: the model is not loaded yet"}, 503)
        if self.is_stopping:
            return json_response({"status": "stopping"}, 503)
        return json_response({"status": "ready"})

    async def _metrics(self) -> Response:
        text = "text/plain; version=0.0.4"
        return self._unready() or Response(await self.engine.call("metrics"), media_type=text)

    async def _server_info(self) -> Response:
        if self.hello is None:
            return json_response({"node": None, "status": "starting"}, 503)
        described = msgspec.json.decode(await self.engine.call("describe"))
        # Before its answer the engine has reported its load of now.
        return json_response({"node": self.record(), **self.hello.info, **described})

    async def _flush_cache(self, request: Request) -> Response:
        refusal = self._admin_refusal(request) or self._unready()
        return refusal or raw_json(await self.engine.call("flush_cache"))

    def _unready(self) -> Response | None:
        return error_response(503, "the engine is starting") if self.hello is None else None

    def _node_refusal(self, request: Request) -> Response | None:
        if not self.is_node(request):
            return error_response(401, "the node secret is missing or wrong")
        return self._unready()

    def _admin_refusal(self, request: Request) -> Response | None:
        key = self.config.admin_api_key
        if key is None:
            return error_response(403, "no --admin-api-key is configured: admin calls are refused")
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), key.encode()):
            return error_response(401, "the admin key is missing or wrong")
        return None


def run_front(front: NodeFront) -> None:
    """Serve until SIGTERM; exits with the engine's error in words when it cannot go on."""
    config = front.config
    logging.basicConfig(
        level=config.log_level.upper(),
        format=f"%(asctime)s %(levelname)s {config.role} %(message)s",
    )
    listener = _listen(config.host, config.port)
    front.server = _Server(
        uvicorn.Config(front.app, log_level="warning", timeout_graceful_shutdown=5), front
    )
    front.server.run(sockets=[listener])
    if front.error is not None:
        print(f"kvloop {config.role}: {front.error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(front.error, ConfigError) else 1)
    if not front.server.started:
        raise SystemExit(1)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, front: NodeFront) -> None:
        super().__init__(config)
        self._front = front

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._front.is_stopping = True
        await self._front.before_close()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is loaded; raises ConfigError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # create_server writes more into strerror than the error's own words.
        words = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigError(f"--port {port}: cannot listen on {host}: {words}") from error


async def _engine_silent(_request: Request, error: Exception) -> Response:
    return error_response(503, str(error))


async def _logged(work: Awaitable[None]) -> None:
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("a task of the front failed")

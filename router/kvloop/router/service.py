"""The parts of a running router, and the one way from jobs to answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import aiohttp

from kvloop.router.admission import Admission
from kvloop.router.answers import Answer
from kvloop.router.canary.probe import Probe
from kvloop.router.canary.runner import Canary
from kvloop.router.config import RouterConfig, read_secret
from kvloop.router.dispatch import Dispatcher
from kvloop.router.event_feeds import EventFeeds
from kvloop.router.event_metrics import EventMetrics
from kvloop.router.history import History
from kvloop.router.history_recall import ChatMemory
from kvloop.router.jobs import Job
from kvloop.router.metrics import RouterMetrics
from kvloop.router.model import ServedModel
from kvloop.router.nodes import NodeRegistry
from kvloop.router.polling import poll_node
from kvloop.router.prefix_index import PrefixIndex
from kvloop.router.returns import Returns
from kvloop.router.storage import RouterStorage
from kvloop.router.tenants import read_tenants
from kvloop.router.thinking import StripRules
from kvloop.router.tokenizer import TokenizerThreads
from kvloop.router.upstream import Upstream

_IDLE_CONNECTION_S = 2.0
"""Less than a server's keep-alive (uvicorn: 5 s), so that no request meets a closing connection."""


class Service:
    """Built once from the config, which it checks; `running` owns connections and tasks."""

    def __init__(self, config: RouterConfig) -> None:
        self.config = config
        self.started_at = int(time.time())
        self.node_secret = read_secret("--node-secret-file", config.node_secret_file)
        self.tenants = read_tenants(config.api_keys)
        self.metrics = RouterMetrics()
        self.registry = NodeRegistry(config.node_expiry_s)
        self.index = PrefixIndex(config.index_pages)
        events = EventMetrics(self.metrics.registry)
        self.events = EventFeeds(self.registry, self.index, events, self.node_secret)
        self.returns = Returns(config.session_horizon_s, self.metrics.session_seen)
        self.threads = TokenizerThreads()
        self.strip_rules = StripRules(self.threads)
        self.storage = RouterStorage(config, self.metrics)
        history = History(config.history_tokens)
        self.chats = ChatMemory(history, self.storage.records, self.threads, self.metrics)
        self.model = ServedModel(config, self.registry, self.threads)
        self.admission = Admission(config.max_queued, self.metrics.in_flight)
        self.canary = Canary(config, self.registry, self.model, self.metrics.registry)
        self.is_stopping = False
        """Told to stop: what is asked is still answered, but clients should go elsewhere."""
        self._dispatcher: Dispatcher | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Polling, tokenizer and connections live inside."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_CONNECTION_S)
        async with aiohttp.ClientSession(connector=connector) as session:
            upstream = Upstream(session, self.registry, self.config, self.node_secret)
            self._dispatcher = Dispatcher(
                self.registry, self.index, upstream, self.metrics, self.config.zone
            )
            self.canary.connect(Probe(session, upstream, self.node_secret))
            tasks = self._tasks(session)
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.canary.close()
                await self.chats.close()
                self.threads.close()

    async def begin(self, jobs: Sequence[Job], stack: ExitStack) -> list[Answer]:
        """Start all jobs at once; their answers are closed with `stack`. Raises ApiError."""
        tasks = [asyncio.create_task(self._begin(job)) for job in jobs]
        try:
            answers = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Answer):
                    result.close()
            raise
        for answer in answers:
            stack.callback(answer.close)
        return answers

    def missing(self) -> list[str]:
        """What keeps the router from serving; empty when it is ready."""
        missing = ["it is stopping"] if self.is_stopping else []
        if not self.registry.ready("decode"):
            problems = [f"{url} {problem}" for url, problem in self.registry.problems.items()]
            missing.append("; ".join(["no decode node is ready", *problems]))
        if self.model.problem is not None:
            missing.append(self.model.problem)
        return missing

    async def _begin(self, job: Job) -> Answer:
        assert self._dispatcher is not None, "the service is not running"
        self.metrics.session_expected(job.returns)
        stream, started = await self._dispatcher.start(job, self.model.node_model)
        learn = partial(self._dispatcher.learn_answer, job, stream.node)
        return Answer(job, stream, started, self.model.tokenizer, self.metrics, learn)

    def _tasks(self, session: aiohttp.ClientSession) -> list[asyncio.Task[None]]:
        interval_s = self.config.poll_interval_s
        poll = partial(poll_node, session, self.registry)
        coroutines = [poll("prefill", url, interval_s) for url in self.config.prefill]
        coroutines += [poll("decode", url, interval_s) for url in self.config.decode]
        coroutines.append(self.model.load_tokenizer())
        coroutines.append(self.canary.schedule())
        if self.config.kv_events:
            coroutines.append(self.events.run())
        coroutines.append(self.chats.follow(self.registry))
        return [asyncio.create_task(coroutine) for coroutine in coroutines]

"""Follows the KV events of every node that publishes some, for the router's index."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from kvloop.router.event_metrics import EventMetrics
from kvloop.router.event_socket import Context, EventSocket
from kvloop.router.event_stream import EventStream
from kvloop.router.nodes import NodeRegistry
from kvloop.router.prefix_index import PrefixIndex
from kvloop.shared_cache.kv_events import EventSource, parse_source
from kvloop.shared_cache.wire import NodeRecord

log = logging.getLogger(__name__)
_LOOK_S = 0.25
"""Between two looks at the registry."""
_QUIET_S = 5.0
"""Silence after which a node is asked whether something was lost at the end."""
_REPLAY_S = 3.0
_AT_ONCE = 16
"""Messages of one node before others have their turn."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Feed:
    """One incarnation's; lives until the registry forgets it."""

    stream: EventStream
    source: EventSource | None
    problem: str | None = "has not answered yet"
    task: asyncio.Task[None] | None = None


class EventFeeds:
    """`run` is a task of the service's; everything happens on its event loop."""

    def __init__(
        self,
        registry: NodeRegistry,
        index: PrefixIndex,
        metrics: EventMetrics,
        secret: str | None,
    ) -> None:
        self._registry, self._index, self._metrics = registry, index, metrics
        self._secret = secret
        self._feeds: dict[str, _Feed] = {}

    async def run(self) -> None:
        """Keep one subscription for each node that is there, until cancelled."""
        context = Context()
        try:
            while True:
                self._reconcile(context)
                await asyncio.sleep(_LOOK_S)
        finally:
            tasks = [feed.task for feed in self._feeds.values() if feed.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            context.destroy(linger=0)

    def status(self, incarnation: str) -> dict[str, object] | None:
        """For /server_info; None where the node's events are not followed."""
        feed = self._feeds.get(incarnation)
        if feed is None:
            return None
        stream = feed.stream
        return {
            "connected": feed.task is not None and feed.problem is None,
            "problem": feed.problem,
            "batches": stream.num_batches,
            "gaps": stream.num_gaps,
            "lag_s": stream.lag_s,
            "pages": self._index.num_pages(incarnation),
        }

    def _reconcile(self, context: Context) -> None:
        known = {record.incarnation: state for record, state in self._registry.states()}
        for gone in [incarnation for incarnation in self._feeds if incarnation not in known]:
            self._stop(self._feeds.pop(gone))
            self._index.forget(gone)
        for record, state in self._registry.states():
            if not record.events:
                continue
            feed = self._feeds.get(record.incarnation)
            if feed is None:
                feed = self._feeds[record.incarnation] = self._new(record)
            if state == "lost":
                self._stop(feed)
            elif feed.source is not None and (feed.task is None or feed.task.done()):
                feed.task = asyncio.create_task(self._follow(context, feed, feed.source))

    def _new(self, record: NodeRecord) -> _Feed:
        stream = EventStream(record.incarnation, self._index, self._metrics)
        try:
            source = parse_source(record.events)
        except ValueError as error:
            return _Feed(stream=stream, source=None, problem=str(error))
        if source.is_encrypted and self._secret is None:
            problem = "its events are encrypted: start the router with --node-secret-file"
            return _Feed(stream=stream, source=None, problem=problem)
        return _Feed(stream=stream, source=source)

    def _stop(self, feed: _Feed) -> None:
        if feed.task is not None:
            feed.task.cancel()
            feed.task = None
        feed.problem = "the node is not there"

    async def _follow(self, context: Context, feed: _Feed, source: EventSource) -> None:
        socket: EventSocket | None = None
        try:
            socket = EventSocket(context, source, self._secret)
            await self._catch_up(socket, feed)
            while True:
                if not await socket.wait(_QUIET_S):
                    await self._catch_up(socket, feed)
                    continue
                for _ in range(_AT_ONCE):
                    await self._take_one(socket, feed)
                    if not await socket.wait(0):
                        break
                await asyncio.sleep(0)
        except Exception as error:  # begun anew by the next look
            feed.problem = str(error)
            log.exception("the KV events of %s", source.endpoint)
            await asyncio.sleep(_QUIET_S)
        finally:
            if socket is not None:
                with contextlib.suppress(Exception):
                    socket.close()

    async def _take_one(self, socket: EventSocket, feed: _Feed) -> None:
        message = await socket.receive()
        if message is None:
            self._metrics.came("malformed")
            return
        stream, (number, payload) = feed.stream, message
        if stream.misses(number):
            await self._catch_up(socket, feed)
            if not stream.misses(number):
                self._metrics.gap(is_repaired=True)
        feed.problem = None
        stream.take(number, payload)

    async def _catch_up(self, socket: EventSocket, feed: _Feed) -> None:
        """Take what the node still has of what was missed; a node without an answer is noted."""
        try:
            async for number, payload in socket.replay(feed.stream.next, _REPLAY_S):
                feed.stream.take(number, payload)
            feed.problem = None
        except TimeoutError as error:
            feed.problem = str(error)

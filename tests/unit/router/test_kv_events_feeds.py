"""The router hears publishers through real sockets on loopback, and notices what it missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import zmq
from prometheus_client import CollectorRegistry
from sglang_events import sglang_events
from sglang_wheel import needs_sglang

from kvloop.engine.event_config import StreamConfig
from kvloop.engine.event_publisher import EventPublisher
from kvloop.engine.event_recorder import Removed, Stored
from kvloop.router import event_feeds
from kvloop.router.event_feeds import EventFeeds
from kvloop.router.event_metrics import EventMetrics
from kvloop.router.event_socket import Context, EventSocket
from kvloop.router.nodes import NodeRegistry
from kvloop.router.prefix_index import PrefixIndex
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.kv_events import EventSource
from kvloop.shared_cache.tree_node import Tier
from kvloop.shared_cache.wire import NodeRecord

KEYS = page_keys([1, 2, 3, 4], 1)
ANY = "tcp://127.0.0.1:*"
SECRET = "between nodes"


class Node:
    """A publisher, and the record that announces it."""

    def __init__(self, incarnation: str = "a", **fields: Any) -> None:
        settings = {"endpoint": ANY, "replay_endpoint": ANY, "is_encrypted": True, **fields}
        self.publisher = EventPublisher(StreamConfig(**settings), 1, SECRET)
        assert self.publisher.replay_endpoint is not None
        self.source = EventSource(
            endpoint=self.publisher.endpoint,
            replay_endpoint=self.publisher.replay_endpoint,
            is_encrypted=bool(settings["is_encrypted"]),
        )
        self.record = record(incarnation, self.source.url)

    def store(self, keys: list[bytes]) -> None:
        self.publisher.publish([Stored(tier=Tier.DEVICE, keys=list(keys), parent=None)])

    def remove(self, keys: list[bytes]) -> None:
        self.publisher.publish([Removed(tier=Tier.DEVICE, keys=list(keys))])


def record(incarnation: str, events: str) -> NodeRecord:
    return NodeRecord(
        url="http://node:1",
        role="prefill",
        incarnation=incarnation,
        namespace="n",
        ready=True,
        events=events,
    )


class Router:
    """What of a router follows events."""

    def __init__(self, secret: str | None = SECRET) -> None:
        self.now = 0.0
        self.registry = NodeRegistry(5.0, clock=lambda: self.now)
        self.index = PrefixIndex(100)
        self.counters = CollectorRegistry()
        self.feeds = EventFeeds(self.registry, self.index, EventMetrics(self.counters), secret)

    def status(self, incarnation: str = "a") -> dict[str, Any]:
        return self.feeds.status(incarnation) or {}

    async def holds(self, run: int, incarnation: str = "a") -> None:
        await soon(
            f"a run of {run}",
            lambda: self.index.leading_pages(KEYS).get(incarnation, 0) == run,
        )

    def gaps(self, repaired: str) -> float:
        value = self.counters.get_sample_value(
            "kvloop_kv_events_gaps_total", {"repaired": repaired}
        )
        return value or 0.0


async def soon(what: str, check: Callable[[], object]) -> None:
    for _ in range(1000):
        if check():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what} did not come")


@asynccontextmanager
async def following(router: Router, *nodes: Node) -> AsyncIterator[Router]:
    for node in nodes:
        router.registry.update(node.record)
    task = asyncio.create_task(router.feeds.run())
    try:
        yield router
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for node in nodes:
            node.publisher.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feeds, "_LOOK_S", 0.01)
    monkeypatch.setattr(event_feeds, "_REPLAY_S", 1.0)


async def test_a_router_that_starts_late_learns_by_replay_and_then_live() -> None:
    node = Node()
    node.store(KEYS[:2])
    async with following(Router(), node) as router:
        await router.holds(2)
        node.remove(KEYS[1:2])
        await router.holds(1)
        assert router.status()["connected"] and router.status()["problem"] is None
        assert router.status()["pages"] == 1 and router.status()["batches"] >= 2
        assert router.status()["lag_s"] < 15 and router.gaps("true") == router.gaps("false") == 0


async def test_a_gap_is_filled_by_the_replay() -> None:
    node, router = Node(), Router()
    async with following(router, node):
        await soon("the connection", lambda: router.status().get("connected"))
        node.store(KEYS[:1])
        await router.holds(1)
        router.index.clear()
        router.feeds._feeds["a"].stream.next -= 1  # as if that message had not come
        node.store(KEYS[1:2])
        await router.holds(2)
        assert (router.gaps("true"), router.gaps("false")) == (1, 0)


async def test_a_gap_that_no_replay_fills_makes_the_node_forgotten() -> None:
    node, router = Node(buffer_steps=1), Router()
    async with following(router, node):
        await soon("the connection", lambda: router.status().get("connected"))
        node.store(KEYS)
        await router.holds(4)
        router.feeds._feeds["a"].stream.next -= 2
        node.store(KEYS[:1])
        await router.holds(1)
        assert router.status()["gaps"] == 1 and router.gaps("false") == 1


async def test_what_was_lost_at_the_end_is_asked_for_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_feeds, "_QUIET_S", 0.05)
    node, router = Node(), Router()
    async with following(router, node):
        node.store(KEYS[:3])
        await router.holds(3)
        router.feeds._feeds["a"].stream.next -= 1
        router.index.clear()
        await router.holds(3)


async def test_a_feed_that_failed_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feeds, "_QUIET_S", 0.05)
    receive, failures = EventSocket.receive, ["of a kind that nobody thought of"]

    async def fails_once(socket: EventSocket) -> Any:
        if failures:
            raise RuntimeError(failures.pop())
        return await receive(socket)

    monkeypatch.setattr(EventSocket, "receive", fails_once)
    node, router = Node(), Router()
    async with following(router, node):
        await soon("the connection", lambda: router.status().get("connected"))
        while failures:
            node.store(KEYS[:1])
            await asyncio.sleep(0.02)
        node.store(KEYS)
        await router.holds(4)
        await soon("the end of the problem", lambda: router.status()["connected"])


async def test_a_message_of_any_size_is_not_taken_in() -> None:
    node, context = Node(), Context()
    socket = EventSocket(context, node.source, SECRET)
    try:
        assert socket._sub.maxmsgsize == 16 << 20
    finally:
        socket.close()
        context.destroy(linger=0)
        node.publisher.close()


async def test_another_incarnation_begins_empty() -> None:
    first, second, router = Node("a"), Node("b"), Router()
    async with following(router, first):
        first.store(KEYS)
        await router.holds(4)
        router.registry.update(second.record)
        await soon("oblivion", lambda: not router.index.num_pages("a"))
        assert router.feeds.status("a") is None
        second.store(KEYS[:1])
        await router.holds(1, "b")
    second.publisher.close()


async def test_a_node_that_comes_back_is_heard_from_where_it_was_left() -> None:
    node, router = Node(), Router()
    async with following(router, node):
        node.store(KEYS[:2])
        await router.holds(2)
        router.now = 6.0  # not heard of for longer than the registry waits
        await soon("its end", lambda: not router.status()["connected"])
        assert router.status()["problem"] == "the node is not there"
        node.remove(KEYS[1:2])
        router.registry.update(node.record)
        await router.holds(1)
        assert router.status()["gaps"] == 0


@pytest.mark.parametrize(
    "fields",
    [{"is_encrypted": False}, {"encoding": "array"}, {"topic": "t"}],
    ids=["plain", "arrays", "a topic"],
)
async def test_streams_of_every_form_are_heard(fields: dict[str, Any]) -> None:
    node = Node(**fields)
    async with following(Router(), node) as router:
        node.store(KEYS[:2])
        await router.holds(2)
        node.store(KEYS)
        await router.holds(4)


async def test_what_keeps_the_router_from_hearing_a_node_is_shown() -> None:
    node, deaf = Node(), Router(secret=None)
    async with following(deaf, node):
        await soon("the problem", lambda: "--node-secret-file" in str(deaf.status()))
        assert not deaf.status()["connected"]
    stranger = Router(secret="another")
    async with following(stranger, Node()):
        await soon("the problem", lambda: "no replay" in str(stranger.status()))
        assert not stranger.status()["connected"]


@pytest.mark.parametrize(
    ("events", "problem"),
    [("http://node", "tcp://host:port"), ("tcp://bad_host!:5?replay=6", "Invalid argument")],
)
async def test_an_address_that_is_none_is_shown(events: str, problem: str) -> None:
    odd = Router()
    odd.registry.update(record("a", events))
    async with following(odd):
        await soon("the problem", lambda: problem in str(odd.status()))
        assert not odd.status()["connected"]


def test_a_socket_that_cannot_connect_is_closed() -> None:
    context = Context()
    source = EventSource(
        endpoint="tcp://bad_host!:5", replay_endpoint="tcp://bad_host!:6", is_encrypted=False
    )
    with pytest.raises(zmq.ZMQError) as error:  # whose frames would keep the socket
        EventSocket(context, source, None)
    assert "Invalid argument" in str(error.value)
    assert all(socket.closed for socket in context._sockets)
    context.destroy(linger=0)


async def test_a_node_without_events_is_left_alone() -> None:
    router = Router()
    router.registry.update(record("a", ""))
    async with following(router):
        router.index.record(KEYS, "a")
        await asyncio.sleep(0.1)
        assert router.feeds.status("a") is None and router.index.num_pages("a") == 4


@needs_sglang
async def test_sglangs_own_publisher_is_heard_live_and_by_replay() -> None:
    peer = sglang_events()
    publisher = peer.ZmqEventPublisher(0, "tcp://127.0.0.1:*", "tcp://127.0.0.1:*", bind=True)
    context = Context()
    source = EventSource(
        endpoint=publisher._local_pub_endpoint,
        replay_endpoint=publisher._local_replay_endpoint,
        is_encrypted=False,
    )
    socket = EventSocket(context, source, None)
    try:
        for number in range(50):
            publisher.publish(peer.KVEventBatch(ts=1.0, events=[peer.BlockRemoved([number])]))
            if await socket.wait(0.1):
                break
        live = await socket.receive()
        assert live is not None
        replayed = [message async for message in socket.replay(0, 10.0)]
        assert live in replayed and [number for number, _ in replayed] == list(range(len(replayed)))
    finally:
        socket.close()
        context.destroy(linger=0)
        publisher.shutdown()

"""Events of real nodes: a peer's subscriber reads them, and the router's index lives on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from event_subscriber import BlockStored, MapBatch, Subscriber
from faults import PAGE, Loop, start_loop
from hicache_loop import ids_of, small_model
from loop import flush
from loop_client import Answer, complete
from running import ADMIN, Cluster, Running, fetch, free_port, wait_for

from kvloop.shared_cache.keys import page_keys

pytestmark = pytest.mark.integration
TOPIC = "kv-events"
PROMPT_PAGES, ANSWER = 6, 2 * PAGE


class Served(NamedTuple):
    loop: Loop
    endpoints: dict[str, str]
    """Of the second prefill node's and the decode node's public streams, and their replays."""


def public(endpoints: dict[str, str], role: str) -> tuple[str, str]:
    """Flags of a node with a stream for others."""
    ports = {role: free_port(), f"{role} replay": free_port()}
    endpoints |= {name: f"tcp://127.0.0.1:{port}" for name, port in ports.items()}
    stream = {
        "publisher": "zmq",
        "enable_kv_cache_events": True,
        "endpoint": f"tcp://*:{ports[role]}",
        "replay_endpoint": f"tcp://*:{ports[f'{role} replay']}",
        "topic": TOPIC,
        "block_hashes": "bytes",
    }
    return "--kv-events-config", json.dumps(stream)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    model, endpoints = small_model(tmp_path_factory.mktemp("model")), dict[str, str]()
    prefills = ((), public(endpoints, "prefill"))
    with Cluster(tmp_path_factory.mktemp("events"), model) as cluster:
        loop = start_loop(cluster, prefills=prefills, decodes=(public(endpoints, "decode"),))
        yield Served(loop, endpoints)


def ask(url: str, seed: object, num_answer: int = 1) -> Answer:
    """A prompt of its own, of whole pages and a token."""
    return complete(url, ids_of(PROMPT_PAGES * PAGE + 1, seed), num_answer)


def heard(url: str, node: Running) -> dict[str, Any] | None:
    """What a router says of a node's events."""
    for known in fetch(f"{url}/server_info")[1]["nodes"]:
        if known["url"] == node.url:
            status: dict[str, Any] | None = known["kv_events"]
            return status
    return None


def wait_pages(url: str, node: Running, pages: int) -> None:
    def is_so() -> bool:
        status = heard(url, node)
        return status is not None and status["connected"] and status["pages"] == pages

    wait_for(f"{pages} pages of {node.url}", is_so)


def held(node: Running) -> int:
    """Pages that are in a tier of the node; L2 has all that L1 has once all is written through."""
    info = node.info()
    tiers = info.get("tier_pages", {"device": info["cached_pages"], "host": 0})
    return max(tiers["device"], tiers["host"])


def node_of(loop: Loop, answer: Answer) -> Running:
    (node,) = [node for node in loop.prefills if node.url == answer.sources["prefill_node"]]
    return node


def settle(loop: Loop) -> None:
    """The router knows that nobody works: it picks by pages alone."""

    def is_still() -> bool:
        nodes = fetch(f"{loop.url}/server_info")[1]["nodes"]
        return all(not n["load"]["running"] and not n["load"]["waiting"] for n in nodes)

    loop.wait_idle()
    wait_for("stillness", is_still)


def test_a_peers_subscriber_reads_the_pages_of_a_chat(served: Served) -> None:
    loop, endpoints = served
    peers = {
        role: Subscriber(endpoints[role], endpoints[f"{role} replay"], TOPIC)
        for role in ("prefill", "decode")
    }
    # Two prompts: each prefill node gets one, and the one with the public stream is the second.
    answers = [ask(loop.url, "peer", ANSWER), ask(loop.url, "peer too", ANSWER)]
    settle(loop)
    assert {node_of(loop, answer) for answer in answers} == set(loop.prefills)
    (mine,) = [answer for answer in answers if node_of(loop, answer) is loop.prefills[1]]
    for role, expected in (("prefill", [mine.prompt]), ("decode", [a.history for a in answers])):
        with peers[role] as peer:
            for tokens in expected:
                check_chain(stored_by(peer, role), tokens)


def stored_by(peer: Subscriber, role: str) -> dict[bytes, tuple[bytes | None, list[int], str]]:
    """Parent, tokens and medium of each page, by its hash; L1's where it is in both tiers."""
    pages: dict[bytes, tuple[bytes | None, list[int], str]] = {}
    for frames in list(peer.replayed(0))[:-1]:
        topic, _, payload = frames
        assert topic == TOPIC.encode()
        for event in msgspec.msgpack.decode(payload, type=MapBatch).events:
            if not isinstance(event, BlockStored) or event.medium != "GPU":
                continue
            assert event.block_size == PAGE
            parent = event.parent_block_hash
            for index, name in enumerate(event.block_hashes):
                tokens = event.token_ids[index * PAGE : (index + 1) * PAGE]
                assert isinstance(name, bytes) and not isinstance(parent, int)
                pages[name] = (parent, tokens, event.medium)
                parent = name
    return pages


def check_chain(pages: dict[bytes, tuple[bytes | None, list[int], str]], tokens: list[int]) -> None:
    """The full pages of a sequence are there under their keys, its last token's without KV."""
    keys, parent = page_keys(tokens[:-1], PAGE), None
    for index, key in enumerate(keys):
        assert pages[key] == (parent, tokens[index * PAGE : (index + 1) * PAGE], "GPU")
        parent = key
    assert len(keys) >= PROMPT_PAGES


def test_the_router_forgets_what_a_node_evicts_and_asks_another(served: Served) -> None:
    loop, _ = served
    answer = ask(loop.url, "evicted")
    holder = node_of(loop, answer)
    settle(loop)
    assert node_of(loop, ask(loop.url, "evicted")) is holder
    settle(loop)
    wait_pages(loop.url, holder, held(holder))
    assert held(holder) >= PROMPT_PAGES
    flush(holder)
    wait_pages(loop.url, holder, 0)
    for number in range(2):  # new prompts go to the nodes in turn: the next is the other's turn
        last = ask(loop.url, f"turn {number}")
        settle(loop)
        if node_of(loop, last) is holder:
            break
    assert node_of(loop, ask(loop.url, "evicted")) is not holder
    assert loop.nodes[0].metric("kvloop_kv_events_total", kind="stored") > 0


def test_a_late_router_learns_by_replay_and_one_without_events_does_not(served: Served) -> None:
    loop, _ = served
    holder = node_of(loop, ask(loop.url, "before the router"))
    settle(loop)
    flags = [flag for node in loop.prefills for flag in ("--prefill", node.url)]
    flags += ["--decode", loop.decodes[0].url, "--admin-api-key", ADMIN]
    flags += ["--node-secret-file", str(loop.cluster.secret)]
    late, deaf = (
        loop.cluster.start(name, "router", "--port", str(port), *flags, *more, port=port)
        for name, more, port in (
            ("late", (), free_port()),
            ("deaf", ("--no-kv-events",), free_port()),
        )
    )
    for router in (late, deaf):
        router.wait_ready()
    for node in loop.nodes:
        wait_pages(late.url, node, held(node))
        assert heard(late.url, node) is not None and heard(deaf.url, node) is None
    assert node_of(loop, ask(late.url, "before the router")) is holder
    assert fetch(f"{deaf.url}/server_info")[1]["index_pages"] == 0
    flush(holder)
    wait_pages(late.url, holder, 0)
    assert late.metric("kvloop_kv_events_total", kind="stored") > 0
    assert late.metric("kvloop_kv_events_total", kind="cleared") > 0
    assert deaf.metric("kvloop_kv_events_total", kind="stored") == 0

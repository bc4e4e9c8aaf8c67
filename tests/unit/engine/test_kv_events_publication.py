"""A node's streams together: what its record says, what is counted, what may fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from event_subscriber import Subscriber
from running import free_port, wait_for

from kvloop.engine.event_publication import Publication
from kvloop.engine.metrics import NodeMetrics
from kvloop.engine.node_config import NodeConfig
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.kv_events import BlockStored, Event, decode_batch, parse_source
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import Tier

KEYS = page_keys([1, 2, 3, 4], 2)


@contextmanager
def published(**fields: Any) -> Iterator[Publication]:
    publication = Publication(NodeConfig(role="decode", model="m", page_size=2, **fields))
    try:
        yield publication
    finally:
        publication.close()


def test_the_record_names_the_host_by_which_others_reach_the_node(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("between nodes")
    with published(advertise_url="http://node-3:30000", node_secret_file=str(secret)) as node:
        source = parse_source(node.url)
        assert source.endpoint.startswith("tcp://node-3:") and source.is_encrypted
    with published(advertise_url="http://[fd00::2]:30000") as node:
        source = parse_source(node.url)
        assert source.endpoint.startswith("tcp://[fd00::2]:") and not source.is_encrypted
    with published() as node:
        assert node.url.startswith("tcp://127.0.0.1:") and node.info == {}


def test_a_public_stream_stands_beside_the_routers_own() -> None:
    public = {"endpoint": "tcp://127.0.0.1:*", "replay_endpoint": "tcp://127.0.0.1:*"}
    with published(kv_events_config=public) as node:
        assert node.recorder is not None
        tree, tokens = RadixTree(observer=node.recorder), [1, 2, 3, 4]
        node.recorder.learn("run", KEYS, lambda: tokens)
        tree.insert(Tier.DEVICE, KEYS, [0, 1])
        node.turn()
        own = parse_source(node.url)
        assert own.endpoint != node.info["kv_events_endpoint"]
        theirs = str(node.info["kv_events_endpoint"]), str(node.info["kv_events_replay_endpoint"])
        ids = [int.from_bytes(key[:8], "big", signed=True) for key in KEYS]
        assert stored(own.endpoint, own.replay_endpoint) == (KEYS, [])
        assert stored(*theirs) == (ids, tokens)


def stored(endpoint: str, replay: str) -> tuple[Any, Any]:
    """Hashes and tokens of the last event, once it says that something is stored."""
    with Subscriber(endpoint, replay) as peer:

        def last() -> Event | None:
            events = [e for m in list(peer.replayed(0))[:-1] for e in decode_batch(m[-1])[1]]
            return events[-1] if events and isinstance(events[-1], BlockStored) else None

        event = wait_for("a stored page", last)
    return event.block_hashes, event.token_ids


def test_pages_are_counted_by_what_is_said_of_them() -> None:
    metrics = NodeMetrics()
    with published() as node:
        node.count_on(metrics.kv_events)
        tree = RadixTree(observer=node.recorder)
        tree.insert(Tier.DEVICE, KEYS, [0, 1])
        node.turn()
        tree.evict(Tier.DEVICE, 1)
        node.turn()
        tree.evict(Tier.DEVICE, 1)
        node.turn()
        node.turn()
    text = metrics.render().decode()
    for kind, count in (("stored", 2), ("removed", 1), ("cleared", 1)):
        assert f'kvloop_kv_events_total{{kind="{kind}"}} {count}.0' in text


def test_closing_tells_what_no_turn_has_handed_on() -> None:
    metrics = NodeMetrics()
    with published() as node:
        node.count_on(metrics.kv_events)
        RadixTree(observer=node.recorder).insert(Tier.DEVICE, KEYS, [0, 1])
    assert 'kvloop_kv_events_total{kind="stored"} 2.0' in metrics.render().decode()


def test_dropped_pages_are_counted() -> None:
    metrics = NodeMetrics()
    with published(kv_events_config={"max_queue_size": 1}) as node:
        node.count_on(metrics.kv_events)
        RadixTree(observer=node.recorder).insert(Tier.DEVICE, KEYS, [0, 1])
        node.turn()
    assert 'kvloop_kv_events_total{kind="dropped"} 2.0' in metrics.render().decode()


def test_nobody_is_told_where_events_are_off() -> None:
    with published(kv_events_config={"publisher": "null"}) as node:
        assert (node.recorder, node.url) == (None, "")
        node.turn()


def test_a_node_whose_own_stream_cannot_be_goes_without() -> None:
    with published(host="203.0.113.7") as node:  # no address of this machine's
        assert (node.recorder, node.url) == (None, "")


def test_ports_that_were_asked_for_and_cannot_be_had_are_the_users_to_change() -> None:
    ports = [free_port(), free_port()]
    with published(kv_events_config={"own_ports": ports}) as node:
        assert node.url == f"tcp://127.0.0.1:{ports[0]}?replay={ports[1]}"
        with pytest.raises(ConfigError, match="--kv-events-config: cannot listen at"):
            Publication(NodeConfig(role="decode", model="m", kv_events_config={"own_ports": ports}))


def test_a_public_stream_that_cannot_be_is_the_users_to_change() -> None:
    with pytest.raises(ConfigError, match="--kv-events-config: cannot listen at"):
        Publication(
            NodeConfig(
                role="decode",
                model="m",
                kv_events_config={
                    "endpoint": "tcp://127.0.0.1:*",
                    "replay_endpoint": "tcp://203.0.113.7:5",
                },
            )
        )

"""--kv-events-config: what it means, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from kvloop.engine.event_config import EventsConfig, StreamConfig, events_config
from kvloop.engine.front import NodeFront
from kvloop.engine.node_config import NodeConfig
from kvloop.shared_cache.errors import ConfigError

PUBLIC = {"endpoint": "tcp://*:5557"}


def meaning(fields: dict[str, Any], *, has_secret: bool = True) -> EventsConfig:
    return events_config(fields, "10.0.0.2", has_secret=has_secret)


def own(fields: dict[str, Any], *, has_secret: bool = True) -> StreamConfig:
    stream = meaning(fields, has_secret=has_secret).own
    assert stream is not None
    return stream


def public(**fields: Any) -> StreamConfig:
    stream = meaning(PUBLIC | fields).public
    assert stream is not None
    return stream


def test_by_default_the_router_alone_has_a_stream_encrypted_and_without_tokens() -> None:
    config = meaning({})
    here = "tcp://10.0.0.2:*"
    assert config.own == StreamConfig(endpoint=here, replay_endpoint=here, is_encrypted=True)
    assert config.public is None and config.streams == [config.own]
    assert not own({}).token_ids and own({}).block_hashes == "bytes"


def test_without_a_secret_there_is_nothing_to_encrypt_with() -> None:
    assert not own({}, has_secret=False).is_encrypted
    assert not own({"curve": False}).is_encrypted


def test_an_address_of_version_six_is_bound_in_brackets() -> None:
    stream = events_config({}, "fd00::2", has_secret=False).own
    assert stream is not None and stream.endpoint == "tcp://[fd00::2]:*"


def test_the_routers_own_stream_can_have_fixed_ports() -> None:
    for fields in ({}, PUBLIC):
        stream = own(fields | {"own_ports": [5601, 5602]})
        assert stream.endpoint == "tcp://10.0.0.2:5601" and stream.is_bound
        assert stream.replay_endpoint == "tcp://10.0.0.2:5602"
    assert public(own_ports=[5601, 5602]) == public()


def test_an_endpoint_adds_a_stream_as_peers_expect_it() -> None:
    assert public(topic="kv@pod@model") == StreamConfig(
        endpoint="tcp://*:5557",
        replay_endpoint=None,
        topic="kv@pod@model",
        hwm=100_000,
        token_ids=True,
        block_hashes="int64",
    )
    assert own(PUBLIC) == own({})


def test_all_fields_reach_the_stream() -> None:
    fields = {
        "replay_endpoint": "ipc:///run/replay",
        "buffer_steps": 1,
        "hwm": 2,
        "max_queue_size": 3,
        "token_ids": False,
        "block_hashes": "bytes",
        "encoding": "array",
        "curve": True,
    }
    stream = public(**fields)
    assert {name: getattr(stream, name, stream.is_encrypted) for name in fields} == fields
    assert own({"token_ids": True}).token_ids and own({"topic": "t"}).topic == "t"


@pytest.mark.parametrize("fields", [{"publisher": "null"}, {"enable_kv_cache_events": False}])
def test_events_can_be_switched_off(fields: dict[str, Any]) -> None:
    assert meaning(PUBLIC | fields).streams == []


@pytest.mark.parametrize(
    ("endpoint", "is_bound"),
    [
        ("tcp://*:5557", True),
        ("tcp://0.0.0.0:5557", True),
        ("tcp://[::]:5557", True),
        ("tcp://127.0.0.1:*", True),
        ("ipc:///run/kv-events", True),
        ("inproc://events", True),
        ("tcp://indexer:5557", False),
        ("tcp://10.0.0.9:5557", False),
        ("tcp://[fd00::9]:5557", False),
    ],
)
def test_an_endpoint_is_bound_or_connected_to_as_vllm_does(endpoint: str, is_bound: bool) -> None:
    assert public(endpoint=endpoint).is_bound == is_bound


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"endpiont": "tcp://*:1"}, ("endpiont", "its fields are")),
        ({"buffer_steps": 0}, ("buffer_steps must be above 0", "got 0")),
        ({"hwm": -1}, ("hwm must be above 0",)),
        ({"max_queue_size": 0}, ("max_queue_size must be above 0",)),
        ({"buffer_steps": "many"}, ("buffer_steps", "int")),
        ({"own_ports": [5601]}, ("own_ports", "length 2")),
        ({"own_ports": [5601, 0]}, ("own_ports must be two different ports", "5601, 0")),
        ({"own_ports": [5601, 5601]}, ("own_ports must be two different ports",)),
        ({"publisher": "kafka"}, ("publisher", "kafka")),
        ({"encoding": "json"}, ("encoding", "json")),
        ({"block_hashes": "hex"}, ("block_hashes", "hex")),
        ({"block_hashes": "int64"}, ("block_hashes int64 needs an endpoint",)),
        ({"replay_endpoint": "tcp://*:5558"}, ("replay_endpoint needs an endpoint",)),
        ({"endpoint": "udp://*:5557"}, ("endpoint must be such as tcp://*:5557", "udp")),
        ({"endpoint": "tcp://5557"}, ("endpoint must be",)),
        ({"endpoint": "tcp://*:99999"}, ("endpoint must be",)),
        (PUBLIC | {"replay_endpoint": "5558"}, ("replay_endpoint must be", "5558")),
    ],
)
def test_a_bad_field_is_named_with_what_would_be_right(
    fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as error:
        meaning(fields)
    assert "--kv-events-config" in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_curve_needs_the_secret_that_its_keys_derive_from() -> None:
    with pytest.raises(ConfigError, match="--node-secret-file"):
        meaning({"curve": True}, has_secret=False)


def test_a_node_refuses_a_bad_field_before_its_model_is_loaded() -> None:
    with pytest.raises(ConfigError, match="endpiont"):
        NodeFront(NodeConfig(role="decode", model="m", kv_events_config={"endpiont": 1}))

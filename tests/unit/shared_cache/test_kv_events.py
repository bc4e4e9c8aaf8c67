"""The form of KV events on the wire, as peers write and read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from event_subscriber import ArrayBatch, MapBatch
from sglang_events import sglang_events
from sglang_wheel import needs_sglang

from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.kv_events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    Event,
    EventSource,
    curve_secret,
    decode_batch,
    encode_batch,
    hash_forms,
    parse_source,
)

TOKENS = [1, 2, 3, 4]
FIRST, SECOND = page_keys(TOKENS, 2)
EVENTS: list[Event] = [
    BlockStored([SECOND], FIRST, TOKENS[2:], 2, medium="GPU"),
    BlockRemoved([FIRST, SECOND], "CPU_PINNED"),
    AllBlocksCleared(),
]
MAPS = (
    "93cb3ff80000000000009388a474797065ab426c6f636b53746f726564ac626c6f636b5f68617368657391c420"
    + SECOND.hex()
    + "b1706172656e745f626c6f636b5f68617368c420"
    + FIRST.hex()
    + "a9746f6b656e5f696473920304aa626c6f636b5f73697a6502a76c6f72615f6964c0"
    "a66d656469756da3475055a96c6f72615f6e616d65c0"
    "83a474797065ac426c6f636b52656d6f766564ac626c6f636b5f68617368657392c420"
    + FIRST.hex()
    + "c420"
    + SECOND.hex()
    + "a66d656469756daa4350555f50494e4e4544"
    "81a474797065b0416c6c426c6f636b73436c656172656400"
)
ARRAYS = (
    "93cb3ff80000000000009398ab426c6f636b53746f72656491c420"
    + SECOND.hex()
    + "c420"
    + FIRST.hex()
    + "92030402c0a3475055c0"
    "93ac426c6f636b52656d6f76656492c420"
    + FIRST.hex()
    + "c420"
    + SECOND.hex()
    + "aa4350555f50494e4e454491b0416c6c426c6f636b73436c656172656400"
)


def test_batches_are_these_very_bytes() -> None:
    assert encode_batch(EVENTS, 1.5).hex() == MAPS
    assert encode_batch(EVENTS, 1.5, "array").hex() == ARRAYS


def test_the_documentation_shows_them() -> None:
    page = Path(__file__).parents[3] / "docs" / "kv-events.md"
    vector = "".join(page.read_text().split("```")[1].split())
    assert vector.replace("K1", FIRST.hex()).replace("K2", SECOND.hex()) == MAPS


@pytest.mark.parametrize("encoding", [MAPS, ARRAYS], ids=["map", "array"])
def test_either_encoding_is_read(encoding: str) -> None:
    assert decode_batch(bytes.fromhex(encoding)) == (1.5, EVENTS)


@pytest.mark.parametrize(
    ("kind", "encoding"), [(MapBatch, MAPS), (ArrayBatch, ARRAYS)], ids=["map", "array"]
)
def test_vllms_types_read_them(kind: Any, encoding: str) -> None:
    batch = msgspec.msgpack.decode(bytes.fromhex(encoding), type=kind)
    stored, removed, _ = batch.events
    assert (batch.ts, batch.data_parallel_rank) == (1.5, 0)
    assert (stored.block_hashes, stored.parent_block_hash) == ([SECOND], FIRST)
    assert (stored.token_ids, stored.block_size, stored.medium) == ([3, 4], 2, "GPU")
    assert stored.lora_id is None and stored.lora_name is None
    assert (removed.block_hashes, removed.medium) == ([FIRST, SECOND], "CPU_PINNED")


@needs_sglang
def test_sglangs_types_read_and_write_what_these_do() -> None:
    peer, to_int = sglang_events(), hash_forms()["int64"]
    first, second = to_int(FIRST), to_int(SECOND)
    mine = encode_batch([BlockStored([second], first, [3, 4], 2, medium="GPU")], 1.0)
    batch = msgspec.msgpack.decode(mine, type=peer.KVEventBatch)
    assert batch.events == [
        peer.BlockStored([second], first, [3, 4], 2, None, peer.StorageMedium.GPU.value)
    ]
    theirs = peer.KVEventBatch(
        ts=2.0,
        events=[
            peer.BlockStored([second], None, [3, 4], 2, None, peer.StorageMedium.CPU),
            peer.BlockRemoved([second], peer.StorageMedium.GPU),
            peer.AllBlocksCleared(),
        ],
    )
    assert decode_batch(msgspec.msgpack.encode(theirs))[1] == [
        BlockStored([second], None, [3, 4], 2, medium="CPU_PINNED"),
        BlockRemoved([second], "GPU"),
        AllBlocksCleared(),
    ]


def test_integers_for_hashes_are_sglangs_the_first_eight_bytes_signed() -> None:
    to_int = hash_forms()["int64"]
    assert to_int(FIRST) == int.from_bytes(FIRST[:8], "big", signed=True)
    assert to_int(b"\xff" * 32) == -1 and to_int(b"\x00" * 7 + b"\x05" + b"\xff" * 24) == 5


def test_a_seed_is_sent_only_where_there_is_one() -> None:
    salted = BlockStored([FIRST], None, [1, 2], 2, medium="GPU", cache_salt="ab")
    (raw,) = msgspec.msgpack.decode(encode_batch([salted], 0.0))[1]
    (plain,) = msgspec.msgpack.decode(encode_batch(EVENTS[:1], 0.0))[1]
    assert raw["cache_salt"] == "ab" and "cache_salt" not in plain


@pytest.mark.parametrize(
    "event",
    [
        {"type": "BlockMoved", "from": 1},
        ["BlockMoved", 1],
        {"block_hashes": []},
    ],
)
def test_kinds_of_events_that_peers_may_add_are_left_out(event: Any) -> None:
    payload = msgspec.msgpack.encode([1.0, [event, ["AllBlocksCleared"]], 0])
    assert decode_batch(payload) == (1.0, [AllBlocksCleared()])


@pytest.mark.parametrize(
    "event",
    [
        {
            "type": "BlockStored",
            "block_hashes": [1],
            "parent_block_hash": None,
            "token_ids": [],
            "block_size": 2,
            "later_field": {"a": 1},
        },
        ["BlockStored", [1], None, [], 2],
        ["BlockStored", [1], None, [], 2, None, None, None, [["salt"]], 0, "full_attention"],
    ],
)
def test_fields_that_peers_add_or_lack_are_of_no_account(event: Any) -> None:
    (stored,) = decode_batch(msgspec.msgpack.encode([1.0, [event]]))[1]
    assert stored == BlockStored([1], None, [], 2)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", b"\x01", msgspec.msgpack.encode([1.0, [5]]), msgspec.msgpack.encode(["x", []])],
)
def test_what_is_no_batch_is_an_error(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_batch(payload)


@pytest.mark.parametrize(
    "url",
    [
        "tcp://10.0.0.2:5557?replay=5558",
        "tcp://node-3.prefill.svc:5557?replay=5558&curve=1",
        "tcp://[fd00::2]:5557?replay=5558",
    ],
)
def test_a_nodes_record_says_where_it_publishes(url: str) -> None:
    source = parse_source(url)
    assert source.url == url and source.is_encrypted == url.endswith("curve=1")
    assert source.endpoint + "?" + url.partition("?")[2] == url
    assert source.replay_endpoint == source.endpoint.replace("5557", "5558")
    assert isinstance(source, EventSource)


@pytest.mark.parametrize(
    "url",
    ["", "tcp://10.0.0.2", "ipc:///a?replay=1", "tcp://h:1", "tcp://h:1?replay=x", "tcp://h:x"],
)
def test_any_other_source_is_an_error_that_shows_it(url: str) -> None:
    with pytest.raises(ValueError):
        parse_source(url)


def test_each_side_has_a_key_of_its_own_from_the_secret() -> None:
    keys = {curve_secret(s, side) for s in ("a", "b") for side in ("publisher", "subscriber")}
    assert len(keys) == 4 and {len(key) for key in keys} == {32}

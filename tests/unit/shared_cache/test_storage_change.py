"""What the body of `PUT /hicache/storage-backend` may say."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.storage_change import StorageChange, parse_storage_change

EXTRA = "hicache_storage_backend_extra_config_json"


def parse(body: Any, role: Any = "prefill") -> StorageChange:
    return parse_storage_change(json.dumps(body).encode(), role)


def test_a_whole_body_is_read() -> None:
    change = parse(
        {
            "hicache_storage_backend": "file",
            EXTRA: {"root": "/pages"},
            "hicache_storage_prefetch_policy": "timeout",
            "hicache_write_policy": "write_back",
        }
    )
    assert change == StorageChange(
        backend="file",
        extra_config={"root": "/pages"},
        prefetch_policy="timeout",
        write_policy="write_back",
    )


def test_the_extra_config_may_be_a_string_that_holds_an_object() -> None:
    change = parse({"hicache_storage_backend": "file", EXTRA: '{"root": "/pages"}'})
    assert change.extra_config == {"root": "/pages"}


def test_null_is_as_absent() -> None:
    change = parse(
        {"hicache_write_policy": "write_back", EXTRA: None, "hicache_storage_backend": None}
    )
    assert change == StorageChange(write_policy="write_back")


def test_a_backend_alone_may_go_to_a_decode_node() -> None:
    assert parse({"hicache_storage_backend": "file"}, "decode").backend == "file"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "nothing to change: give hicache_storage_backend"),
        ({"hicache_storage_backend": None}, "nothing to change"),
        ({"backend": "file"}, "unknown field 'backend'; known: hicache_storage_backend"),
        ({"hicache_storage_backend": "tape"}, "hicache_storage_backend must be one of aibrix, cha"),
        ({"hicache_storage_backend": 7}, "hicache_storage_backend must be one of"),
        ({"hicache_storage_backend": ["file"]}, "got an array"),
        ({"hicache_write_policy": "write_around"}, "hicache_write_policy must be one of write_thr"),
        ({"hicache_write_policy": True}, "hicache_write_policy must be one of"),
        ({"hicache_storage_prefetch_policy": ""}, "hicache_storage_prefetch_policy must be one of"),
        ({"hicache_storage_prefetch_policy": {}}, "got an object"),
        ({EXTRA: {"root": "/x"}}, f"{EXTRA} is of no use without hicache_storage_backend"),
        ({"hicache_storage_backend": "file", EXTRA: [1]}, f"{EXTRA} must be a JSON object, got an"),
        ({"hicache_storage_backend": "file", EXTRA: 1.5}, "got a number"),
        ({"hicache_storage_backend": "file", EXTRA: False}, "got a boolean"),
        ({"hicache_storage_backend": "file", EXTRA: "root=/x"}, f"{EXTRA} is not JSON"),
        ({"hicache_storage_backend": "file", EXTRA: '"text"'}, "got a string"),
        ([], "the body must be a JSON object, got an array"),
        (None, "the body must be a JSON object, got null"),
    ],
)
def test_a_wrong_body_is_refused_naming_the_field(body: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(body)
    assert words in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"NaN"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ConfigError, match="the body is not JSON"):
        parse_storage_change(body, "prefill")


@pytest.mark.parametrize("field", ["hicache_storage_prefetch_policy", "hicache_write_policy"])
def test_policies_are_refused_by_a_decode_node(field: str) -> None:
    value = {"hicache_storage_prefetch_policy": "timeout", "hicache_write_policy": "write_back"}
    with pytest.raises(ConfigError, match=f"{field} is a prefill node's; this is a decode node"):
        parse({"hicache_storage_backend": "file", field: value[field]}, "decode")


def test_a_refusal_repeats_nothing_of_the_extra_config() -> None:
    for extra in ("hunter2", ["hunter2"], '["hunter2"]', "{'password': 'hunter2'}"):
        with pytest.raises(ConfigError) as caught:
            parse({"hicache_storage_backend": "file", EXTRA: extra})
        assert "hunter2" not in str(caught.value)


def test_a_change_crosses_to_the_engine_as_it_is() -> None:
    change = StorageChange(backend="file", extra_config={"a": [1, {"b": None}]})
    raw = msgspec.msgpack.encode(change)
    assert msgspec.msgpack.decode(raw, type=StorageChange) == change

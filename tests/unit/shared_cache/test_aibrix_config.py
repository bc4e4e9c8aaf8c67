"""The extra config of `aibrix`, and what of it AIBrix is told."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest

from kvloop.shared_cache.backends.aibrix.block_store import block_tokens
from kvloop.shared_cache.backends.aibrix.config import parse_aibrix_config
from kvloop.shared_cache.backends.aibrix.folders import (
    block_hashes,
    block_of_file,
    folders,
    pages_name,
    records_name,
    stored_object,
)
from kvloop.shared_cache.backends.aibrix.library import aibrix_environment, load_aibrix
from kvloop.shared_cache.errors import ConfigError

SHFS = {"l2_cache_backend": "SHFS", "root": "/srv/kv"}
ROCKSDB = {"l2_cache_backend": "ROCKSDB", "root": "/srv/kv"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"l2_cache_backend": "MOCK"}, "'MOCK' stores nothing; use SHFS or ROCKSDB"),
        ({"l2_cache_backend": "HPKV"}, "`$.l2_cache_backend`"),
        ({"root": "/srv/../etc"}, "root: '/srv/../etc' must not contain '..'"),
        ({"root": "/srv/\x00"}, "must not contain a NUL"),
        ({"root": ""}, "root: must not be empty"),
        ({"mount_point": "../srv"}, "mount_point: '../srv' must not contain '..'"),
        ({"layout": "NHD"}, "`$.layout`"),
        ({"num_threads": 0}, "`$.num_threads`"),
        ({"ttl_s": 60}, "ttl_s is a setting of l2_cache_backend ROCKSDB only"),
        ({"write_buffer_bytes": 1 << 20}, "write_buffer_bytes is a setting of"),
        ({"namespace": "x"}, "unknown field 'namespace'"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_aibrix_config({**SHFS, **fields})
    assert words in str(caught.value)


@pytest.mark.parametrize("field", ["l2_cache_backend", "root"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(ConfigError, match=f"lacks the field '{field}'"):
        parse_aibrix_config({name: SHFS[name] for name in SHFS if name != field})


def test_aibrix_is_told_of_each_field() -> None:
    config = parse_aibrix_config(
        {**ROCKSDB, "num_threads": 7, "ttl_s": 11, "write_buffer_bytes": 3 << 20}
    )
    settings = config.environment("name", 16)
    told = {name.removeprefix("AIBRIX_KV_CACHE_OL_"): value for name, value in settings.items()}
    assert told["L2_CACHE_BACKEND"] == "ROCKSDB" and told["ROCKSDB_ROOT"] == "/srv/kv"
    assert told["L2_CACHE_NAMESPACE"] == "name"
    assert told["L2_CACHE_NUM_ASYNC_WORKERS"] == "7" and told["ROCKSDB_TTL_S"] == "11"
    assert told["ROCKSDB_WRITE_BUFFER_SIZE"] == str(3 << 20)


def test_a_put_is_done_when_it_returns_and_no_deadline_of_aibrix_gives_memory_back() -> None:
    settings = parse_aibrix_config(SHFS).environment("name", 16)
    prefix = "AIBRIX_KV_CACHE_OL_"
    assert settings[f"{prefix}L1_CACHE_ENABLED"] == "0"
    assert settings[f"{prefix}L2_CACHE_INGESTION_MAX_INFLIGHT_TOKENS"] == "0"
    assert int(settings[f"{prefix}L2_CACHE_PER_TOKEN_TIMEOUT_MS"]) >= 3_600_000


def test_settings_hold_only_while_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIBRIX_A", "mine")
    monkeypatch.delenv("AIBRIX_B", raising=False)
    with (
        pytest.raises(ZeroDivisionError),
        aibrix_environment({"AIBRIX_A": "theirs", "AIBRIX_B": "new"}),
    ):
        assert (os.environ["AIBRIX_A"], os.environ["AIBRIX_B"]) == ("theirs", "new")
        raise ZeroDivisionError
    assert os.environ["AIBRIX_A"] == "mine" and "AIBRIX_B" not in os.environ


def test_a_missing_library_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aibrix_kvcache", None)
    with pytest.raises(ConfigError, match="pip install --no-deps aibrix-kvcache"):
        load_aibrix("SHFS")


def test_loading_the_library_leaves_the_event_loops_of_the_process_alone() -> None:
    pytest.importorskip("uvloop")
    policy = asyncio.get_event_loop_policy()
    load_aibrix("SHFS")
    assert asyncio.get_event_loop_policy() is policy


@pytest.mark.parametrize(
    ("page_size", "object_bytes", "expected"),
    [(16, 8192, 16), (64, 1 << 20, 64), (1, 4096, 1), (48, 4096, 16), (4096, 4096, 2048)],
)
def test_blocks_have_a_pages_tokens_where_these_part_them_evenly(
    page_size: int, object_bytes: int, expected: int
) -> None:
    assert block_tokens(page_size, object_bytes) == expected


def test_folders_say_whose_and_how_long_their_blocks_are(tmp_path: Path) -> None:
    mine, key = secrets.token_bytes(32), secrets.token_bytes(32)
    for name in (
        f"{pages_name(mine, 8192)}_h0_0_l0_0_lcnd16roc",
        f"{records_name(mine)}_h0_0_l0_0_ncld1roc",
        "kvl1-locks",
        "aibrix_h0_0_l0_0_lcnd16roc",
        f"kvl1-{'0' * 63}-8192_h0_0_l0_0_lcnd16roc",
    ):
        (tmp_path / name).mkdir()
    found = sorted(folders(tmp_path), key=lambda folder: folder.num_tokens)
    assert [(f.namespace, f.block_bytes, f.layout, f.num_tokens) for f in found] == [
        (mine, None, "NCLD", 1),
        (mine, 8192, "LCND", 16),
    ]
    [block] = block_hashes(key, 1)
    page = stored_object(found[1], block, 8192, None)
    assert (page.namespace, page.key, page.group) == (mine, key, 0)
    assert stored_object(found[0], block, 20480, None).key is None


def test_the_name_of_a_blocks_file_is_read_back_and_fits_a_file_system() -> None:
    block = block_hashes(secrets.token_bytes(32), 10)[9]
    file = Path("x") / block.encode().hex()
    assert block_of_file(file) == block and len(file.name) + len(".tmp") < 255
    assert block_of_file(file.with_suffix(".tmp")) is None

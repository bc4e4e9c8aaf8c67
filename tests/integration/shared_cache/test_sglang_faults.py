"""The plug-in over stores that fail, damage pages, hang or are away: misses, and never bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flaky_backend import CLASS, MODULE
from page_files import stored_files
from running import wait_for
from sglang_pools import fill, mha_pool, page_bytes, page_keys
from sglang_wheel import create_storage, extra_config, needs_sglang, sglang_module, storage_config

from kvloop.shared_cache.sglang.pool_store import PoolStore

pytestmark = [pytest.mark.integration, needs_sglang]


@pytest.mark.parametrize("place", ["payload", "trailer", "end"])
def test_a_damaged_page_is_a_counted_miss_and_leaves_the_pool_alone(
    attach: Callable[..., Any], root: Path, place: str
) -> None:
    pool, keys = mha_pool("page_first", 16), page_keys(1)
    storage = attach(pool)
    fill(pool)
    written, read = pool.alloc(16), pool.alloc(16)
    storage.batch_set_v1(keys, written)
    [path] = stored_files(root)
    data = bytearray(path.read_bytes())
    payload = len(page_bytes(pool, written)[0])
    if place == "end":
        del data[-1:]
    else:
        data[7 if place == "payload" else payload + 40] ^= 1
    path.write_bytes(data)
    before = page_bytes(pool, read)
    assert storage.batch_get_v1(keys, read) == [False]
    assert page_bytes(pool, read) == before
    stats = storage.stats()["kv"]
    assert stats.get("prefetch_fault_pages", 0) + stats.get("prefetch_miss_pages", 0) == 1
    assert storage.batch_set_v1(keys, written) == [True]
    assert storage.batch_get_v1(keys, read) == [True]


def flaky(root: Path, **failures: float) -> dict[str, Any]:
    config = {
        "backend_name": "flaky",
        "module_path": MODULE,
        "class_name": CLASS,
        "root": str(root),
        **failures,
    }
    return extra_config("dynamic", config, dynamic_modules=[MODULE], deadline_s=1.0)


@pytest.mark.parametrize(
    "failures",
    [
        {"misses": 0.3},
        {"errors": 0.1},
        {"stalls": 0.1, "stall_s": 1.5},
        {"lost_writes": 0.3},
        {"flips": 0.3},
        {"misses": 0.1, "errors": 0.05, "flips": 0.1, "lost_writes": 0.1},
    ],
)
def test_a_failing_store_costs_misses_and_never_bytes(
    root: Path, opened: list[Any], failures: dict[str, float]
) -> None:
    pool, keys = mha_pool("layer_first", 2, tokens=1024), page_keys(128)
    storage = create_storage(storage_config(flaky(root, **failures)), pool)
    opened.append(storage)
    fill(pool)
    written, read = pool.alloc(256), pool.alloc(256)
    right = page_bytes(pool, written)

    def num_hits() -> int:
        storage.batch_set_v1(keys, written)
        assert 0 <= storage.batch_exists(keys) <= 128
        found = storage.batch_get_v1(keys, read)
        pages = page_bytes(pool, read)
        hits = [(page, kept) for page, kept, ok in zip(pages, right, found, strict=True) if ok]
        assert all(page == kept for page, kept in hits)
        return len(hits)

    hits = [num_hits() for _ in range(8)]
    assert any(hits) or wait_for("a hit between the failures", num_hits)
    assert page_bytes(pool, written) == right
    if failures.get("flips"):
        assert storage.stats()["kv"]["fault_payload"]


def test_a_call_is_given_up_at_its_deadline(root: Path, opened: list[Any]) -> None:
    config = flaky(root, stalls=0.5, stall_s=2.0) | {"deadline_s": 0.3, "open_timeout_s": 1.0}
    storage = create_storage(storage_config(config), mha_pool("page_first", 16))
    opened.append(storage)

    def last_error() -> str:
        assert storage.batch_exists(page_keys(1)) == 0
        return str(storage.status()["kv"]["last_error"])

    wait_for("the deadline in the status", lambda: "0.3 s" in last_error())


def test_the_start_waits_for_the_store_as_long_as_it_is_told(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(PoolStore, "wait_open", lambda self, timeout_s: waits.append(timeout_s))
    attach(mha_pool("page_first", 16), {"open_timeout_s": 0.7})
    assert waits == [0.7]


def test_sglangs_own_failure_injector_wraps_the_plug_in(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, opened: list[Any]
) -> None:
    monkeypatch.setenv("SGLANG_TEST_HICACHE_BACKEND_RANDOM_FAILURE", "0.5")
    pool, keys = mha_pool("page_first", 16), page_keys(8)
    storage = attach(pool)
    opened.remove(storage)
    opened.append(storage._backend)  # SGLang's wrapper has no close
    module = sglang_module("sglang.srt.mem_cache.hicache_storage")
    assert isinstance(storage, module.HiCacheStorageFailureInjector)
    fill(pool)
    written, read = pool.alloc(128), pool.alloc(128)
    for _ in range(20):
        assert set(storage.batch_set_v1(keys, written)) in ({True}, {False})
        assert storage.batch_exists(keys) in (0, 8)
        if all(storage.batch_get_v1(keys, read)):
            assert page_bytes(pool, read) == page_bytes(pool, written)


def test_sglang_starts_while_the_store_is_away_and_finds_it_later(
    root: Path, opened: list[Any]
) -> None:
    root.parent.mkdir(exist_ok=True)
    root.write_text("a file where the directory should be")
    config = extra_config("file", {"root": str(root)}, open_timeout_s=0.1)
    pool = mha_pool("page_first", 16)
    storage = create_storage(storage_config(config), pool)
    opened.append(storage)
    assert storage.batch_exists(page_keys(1)) == 0
    assert storage.batch_set_v1(page_keys(1), pool.alloc(16)) == [False]
    assert storage.stats()["kv"]["copied_in_pages"] == 0
    root.unlink()
    assert storage._kv.store._store.guard.wait_attached(30)
    assert storage.batch_set_v1(page_keys(1), pool.alloc(16)) == [True]

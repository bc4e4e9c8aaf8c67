"""The master dies and comes back; the store ends in order."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mooncake_store import MooncakeStore
from running import wait_for

from kvloop.shared_cache.backends.mooncake.master import MooncakeMaster, is_listening
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore

pytestmark = pytest.mark.integration

SHAPE = PageShape(num_layers=2, page_size=16, num_kv_heads=2, head_size=16, itemsize=2)
NAMESPACE = b"n" * 32
CONFIG = GuardConfig(deadline_s=1.0, first_retry_s=0.1, max_retry_s=0.5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MooncakeStore]:
    store = MooncakeStore(tmp_path / "store.log")
    yield store
    store.process.kill()
    store.process.wait()


@pytest.fixture
def pool() -> HostPool:
    return HostPool(SHAPE, 16)


@pytest.fixture
def pages(store: MooncakeStore, pool: HostPool) -> Iterator[PageStore]:
    opener = backend_opener("mooncake", {"master_server_address": store.address}, pool, NAMESPACE)
    guard = GuardedBackend(opener, pool, name="mooncake", namespace=NAMESPACE, config=CONFIG)
    assert guard.wait_attached(10)
    pages = PageStore(guard, pool, namespace=NAMESPACE, writer="prefill")
    yield pages
    pages.close()


def save_one(pages: PageStore, pool: HostPool) -> bytes | None:
    """The key of a page that was stored, if it was."""
    key, slots = secrets.token_bytes(32), pool.alloc(1)
    assert slots is not None
    pool.view(slots[0])[:] = os.urandom(SHAPE.slot_bytes)
    is_stored = pages.save([key], slots)[0]
    pool.free(slots)
    return key if is_stored else None


def works(pages: PageStore, pool: HostPool) -> bool:
    key = save_one(pages, pool)
    if key is None:
        return False
    return load_one(pages, pool, key) == "prefill"


def load_one(pages: PageStore, pool: HostPool, key: bytes) -> str | None:
    slots = pool.alloc(1)
    assert slots is not None
    [writer] = pages.load([key], slots)
    pool.free(slots)
    return writer


def test_a_dead_master_is_only_misses_and_the_cache_works_again_with_the_next(
    store: MooncakeStore, pages: PageStore, pool: HostPool
) -> None:
    key = save_one(pages, pool)
    assert key is not None and pages.exists([key]) == [True]
    store.kill_master()
    wait_for("the breaker", lambda: pages.exists([key]) == [False] and not pages.is_attached)
    assert pages.status()["state"] == "open" and pages.status()["last_error"]
    assert not works(pages, pool) and load_one(pages, pool, key) is None
    store.wait_for_line("the master died")
    master = MooncakeMaster("127.0.0.1", store.port, store.metrics_port)
    master.start()
    try:
        wait_for("the cache", lambda: works(pages, pool))
        assert pages.exists([key]) == [False]
        assert store.process.poll() is None
    finally:
        master.stop()
    wait_for("all slots", lambda: pool.num_free == pool.num_slots)


def test_the_store_restarts_its_master_when_told_to(tmp_path: Path, pool: HostPool) -> None:
    store = MooncakeStore(tmp_path / "store.log", restart_master=True)
    try:
        store.kill_master()
        store.wait_for_line("the master runs again")
        opener = backend_opener(
            "mooncake", {"master_server_address": store.address}, pool, NAMESPACE
        )
        guard = GuardedBackend(opener, pool, name="mooncake", namespace=NAMESPACE, config=CONFIG)
        pages = PageStore(guard, pool, namespace=NAMESPACE, writer="prefill")
        wait_for("the cache", lambda: works(pages, pool))
        pages.close()
    finally:
        assert store.stop() == 0


def test_sigterm_ends_the_store_and_its_master(store: MooncakeStore) -> None:
    master = psutil.Process(store.master_pid())
    assert store.stop() == 0
    assert not master.is_running()
    assert not is_listening("127.0.0.1", store.port)


def test_sigterm_ends_a_store_whose_master_died(store: MooncakeStore) -> None:
    store.kill_master()
    store.wait_for_line("the master died")
    assert store.stop() == 0


def test_a_killed_store_leaves_no_master_behind(store: MooncakeStore) -> None:
    master = psutil.Process(store.master_pid())
    store.process.send_signal(signal.SIGKILL)
    store.process.wait()
    wait_for("the master's end", lambda: not master.is_running())


def test_a_master_port_in_use_names_the_flag(store: MooncakeStore) -> None:
    with pytest.raises(ConfigError, match=f"--port {store.port}: cannot listen on 127"):
        MooncakeMaster("127.0.0.1", store.port, 1)


def test_a_full_store_refuses_pages_and_goes_on(store: MooncakeStore) -> None:
    shape = PageShape(num_layers=8, page_size=64, num_kv_heads=8, head_size=128, itemsize=4)
    pool = HostPool(shape, 1)
    opener = backend_opener("mooncake", {"master_server_address": store.address}, pool, NAMESPACE)
    backend = opener()
    slots = pool.alloc(1)
    assert slots is not None
    results = [backend.set([secrets.token_bytes(32)], slots) for _ in range(40)]
    assert [True] in results and [False] in results
    assert backend.stats()["no_room"] == results.count([False])
    backend.close()

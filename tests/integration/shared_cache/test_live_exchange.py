"""Real backends change places under calls: whole pages or misses, and nothing stays behind."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mooncake_store import MooncakeStore
from running import wait_for

from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore

pytestmark = pytest.mark.integration

SHAPE = PageShape(num_layers=2, page_size=16, num_kv_heads=2, head_size=16, itemsize=2)
NAMESPACE = b"n" * 32
CONFIG = GuardConfig(deadline_s=2.0, first_retry_s=0.1, max_retry_s=0.5)
NUM_USERS = 3
BATCH = 4


@pytest.fixture
def pool() -> HostPool:
    return HostPool(SHAPE, 64)


@pytest.fixture
def pages(pool: HostPool) -> Iterator[PageStore]:
    guard = GuardedBackend(None, pool, name="none", namespace=NAMESPACE, config=CONFIG)
    pages = PageStore(guard, pool, namespace=NAMESPACE, writer="prefill")
    yield pages
    pages.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MooncakeStore]:
    """One of the test's own, to be stopped at will."""
    store = MooncakeStore(tmp_path / "store.log")
    yield store
    store.process.kill()
    store.process.wait()


def attach(pages: PageStore, name: str, **config: Any) -> None:
    pages.guard.attach(backend_opener(name, config, pages.guard.pool, NAMESPACE), name)
    assert pages.guard.wait_attached(20), pages.status()


def content(key: bytes) -> bytes:
    repeats = -(-SHAPE.payload_bytes // 32)
    return (hashlib.sha256(key).digest() * repeats)[: SHAPE.payload_bytes]


def save_and_load(pages: PageStore, pool: HostPool, keys: list[bytes]) -> int:
    """Pages that came back, each of them checked against its own content."""
    slots = pool.alloc(len(keys))
    assert slots is not None, "a slot was lost"
    for key, slot in zip(keys, slots, strict=True):
        pool.view(slot)[: SHAPE.payload_bytes] = content(key)
    pages.save(keys, slots)
    pool.free(slots)
    slots = pool.alloc(len(keys))
    assert slots is not None, "a slot was lost"
    writers = pages.load(keys, slots)
    found = [(k, s) for k, s, writer in zip(keys, slots, writers, strict=True) if writer]
    for key, slot in found:
        assert bytes(pool.view(slot)[: SHAPE.payload_bytes]) == content(key)
    pool.free(slots)
    return len(found)


class User(threading.Thread):
    """Saves and loads new pages, and old ones again, until told to stop."""

    def __init__(self, pages: PageStore, pool: HostPool, number: int) -> None:
        super().__init__(daemon=True)
        self.num_found = self.num_asked = 0
        self.error: BaseException | None = None
        self.stop = threading.Event()
        self._pages, self._pool, self._number = pages, pool, number

    def run(self) -> None:
        try:
            for i in itertools.count():
                if self.stop.is_set():
                    return
                names = [f"{self._number} {i * BATCH // 2 + j}" for j in range(BATCH)]
                keys = [hashlib.sha256(name.encode()).digest() for name in names]
                self.num_found += save_and_load(self._pages, self._pool, keys)
                self.num_asked += BATCH
        except BaseException as error:
            self.error = error


@contextmanager
def users(pages: PageStore, pool: HostPool) -> Iterator[list[User]]:
    """Threads that use the cache; at the end they are stopped, and must have met no error."""
    threads = [User(pages, pool, number) for number in range(NUM_USERS)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.stop.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert [thread.error for thread in threads] == [None] * NUM_USERS


def num_found(threads: list[User]) -> int:
    return sum(thread.num_found for thread in threads)


def test_file_and_mooncake_change_places_under_load(
    pages: PageStore, pool: HostPool, mooncake_store: MooncakeStore, tmp_path: Path
) -> None:
    before = set(l3_threads())
    with users(pages, pool) as threads:
        for cycle in range(6):
            if cycle % 2:
                attach(pages, "mooncake", master_server_address=mooncake_store.address)
            else:
                attach(pages, "file", root=str(tmp_path / str(cycle % 4)))
            found = num_found(threads)
            wait_for("pages from the new one", lambda n=found: num_found(threads) > n)
            if cycle % 3 == 0:
                assert pages.guard.detach(10)
    assert pages.guard.generation == 6
    assert pages.counters.snapshot().faults == {}, "no page was torn"
    assert pages.guard.detach(10)
    wait_for("all slots", lambda: pool.num_free == pool.num_slots)
    wait_for("the threads", lambda: set(l3_threads()) <= before)


def l3_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("l3-")]


def test_a_store_that_hangs_is_left_for_another_at_once(
    pages: PageStore, pool: HostPool, store: MooncakeStore, tmp_path: Path
) -> None:
    attach(pages, "mooncake", master_server_address=store.address)
    assert save_and_load(pages, pool, [b"1" * 32]) == 1
    master = store.master_pid()
    assert master is not None
    os.kill(master, signal.SIGSTOP)
    try:
        wait_for("the breaker", lambda: not pages.exists([b"1" * 32])[0] and not pages.is_attached)
        attach(pages, "file", root=str(tmp_path / "instead"))
        assert save_and_load(pages, pool, [b"2" * 32]) == 1
        assert pages.status()["backend"] == "file" and pages.status()["last_error"] is None
    finally:
        os.kill(master, signal.SIGCONT)
    wait_for("all slots", lambda: pool.num_free == pool.num_slots, 60)

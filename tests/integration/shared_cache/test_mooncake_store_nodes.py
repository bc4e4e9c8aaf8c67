"""Store nodes come and go, and what they held is a miss and no error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mooncake_pages import NAMESPACE, SHAPE, client
from mooncake_store import MooncakeStore, running
from running import fetch, wait_for

from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool

pytestmark = pytest.mark.integration

_TTL = ("--client-ttl", "3")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MooncakeStore]:
    with running(MooncakeStore(tmp_path / "store.log", 64 << 20, False, *_TTL)) as store:
        yield store


@pytest.fixture
def other(store: MooncakeStore, tmp_path: Path) -> Iterator[MooncakeStore]:
    with running(MooncakeStore(tmp_path / "other.log", master=store.address)) as other:
        yield other


def test_a_node_that_joins_gives_its_memory(store: MooncakeStore, tmp_path: Path) -> None:
    with client(store.config, with_hard_pin=True) as node:
        alone = node.put(70)
        assert len(alone) < 70
        with running(MooncakeStore(tmp_path / "late.log", master=store.address)):
            assert len(node.put(20)) == 20


def test_pages_of_a_dead_node_are_misses_and_those_of_the_living_are_served(
    store: MooncakeStore, other: MooncakeStore
) -> None:
    with (
        client(store.config, preferred_segments=[store.segment]) as here,
        client(store.config, preferred_segments=[other.segment]) as there,
    ):
        kept, lost = here.put(3), there.put(3)
        other.kill()
        assert here.readable(lost) == []  # one batch each: a whole batch may be lost
        assert here.readable(kept) == kept
        assert here.backend.stats()["failed_keys"] > 0


def test_new_pages_go_to_the_living_node_once_the_dead_is_given_up(
    store: MooncakeStore, other: MooncakeStore
) -> None:
    with client(store.config) as node:
        node.put(2)
        other.kill()
        url = f"http://127.0.0.1:{store.metrics_port}/get_all_segments"
        wait_for("the end of the dead one", lambda: fetch(url)[1].split() == [store.segment])
        assert len(node.put(8)) == 8


def test_a_dead_node_does_not_open_the_guards_breaker(
    store: MooncakeStore, other: MooncakeStore
) -> None:
    pool = HostPool(SHAPE, 4)
    guard = GuardedBackend(
        backend_opener("mooncake", store.config, pool, NAMESPACE),
        pool,
        name="mooncake",
        namespace=NAMESPACE,
    )
    assert guard.wait_attached(10)
    slots = pool.alloc(1)
    assert slots is not None
    with client(store.config, preferred_segments=[other.segment]) as node:
        lost = node.put(4)
    other.kill()
    assert [guard.get([key], slots) for key in lost] == [[False]] * 4
    assert guard.state == "attached"
    guard.close()


def test_a_store_node_ends_in_order_and_takes_its_pages_along(
    store: MooncakeStore, other: MooncakeStore
) -> None:
    with client(store.config, preferred_segments=[other.segment]) as node:
        keys = node.put(3)
        assert other.stop() == 0
        assert node.backend.exists(keys) == [False] * 3


def test_a_master_alone_takes_store_nodes_and_has_no_room_itself(tmp_path: Path) -> None:
    with running(MooncakeStore(tmp_path / "master.log", 0)) as master:
        with client(master.config) as node:
            assert node.put(1) == []
            with running(MooncakeStore(tmp_path / "node.log", master=master.address)):
                assert len(node.put(1)) == 1
        assert master.stop() == 0


def test_pages_that_memory_has_no_room_for_are_read_from_the_ssd(tmp_path: Path) -> None:
    ssd = tmp_path / "ssd"
    flags = ("--ssd-dir", str(ssd), "--master-flag", "default_kv_lease_ttl=100ms")
    with running(MooncakeStore(tmp_path / "store.log", 64 << 20, False, *flags)) as store:
        with client(store.config) as node:
            keys: list[bytes] = []
            wait_for("160 pages", lambda: keys.extend(node.put(4)) or len(keys) >= 160)
            wait_for("files", lambda: list(ssd.glob("*.bucket")))
            fit_into_memory = (64 << 20) // SHAPE.object_bytes
            wait_for("pages", lambda: len(node.readable(keys)) > fit_into_memory)
        assert store.stop() == 0

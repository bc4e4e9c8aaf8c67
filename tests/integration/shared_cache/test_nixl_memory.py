"""The memory server's faults: killed, stopped, restarted, slow clients; and TCP alone."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nixl_memory import MemoryServer
from nixl_pages import Pages
from running import free_port, wait_for

from kvloop.shared_cache.backends.nixl.agent import PoolAgent
from kvloop.shared_cache.backends.nixl.messages import Commit, Flags, Grants, Reserve
from kvloop.shared_cache.page_object import object_name
from kvloop.shared_cache.storage_errors import StorageUnavailable

pytestmark = pytest.mark.integration
pytest.importorskip("nixl_cu12", reason="install nixl-cu12")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


@pytest.fixture
def start(log: Path) -> Iterator[Callable[..., MemoryServer]]:
    """Starts a server that ends with the test, however that ends."""
    started: list[MemoryServer] = []

    def start_one(*arguments: str, **options: Any) -> MemoryServer:
        started.append(MemoryServer(log, *arguments, **options))
        return started[-1]

    yield start_one
    for server in started:
        server.signal(signal.SIGCONT)
        server.kill()


@pytest.fixture
def server(start: Callable[..., MemoryServer]) -> MemoryServer:
    return start()


def config(server: MemoryServer, **fields: Any) -> dict[str, Any]:
    return {"plugin": "UCX", "server": server.address, **fields}


def test_a_server_that_is_not_there_is_said_so_at_opening() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(StorageUnavailable, match=f"{address} did not answer within 0.3 s"):
        Pages().open({"plugin": "UCX", "server": address, "timeout_s": 0.3})


def test_pages_go_and_come_over_tcp_alone(
    start: Callable[..., MemoryServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UCX_TLS", "tcp")
    server, pages = start(), Pages()
    backend = pages.open(config(server))
    try:
        keys, slots, others = pages.keys(8), pages.filled(8), pages.blank(8)
        assert backend.set(keys, slots) == [True] * 8
        assert backend.get(keys, others) == [True] * 8
        assert pages.are_equal(slots, others)
    finally:
        backend.close()
        assert server.stop() == 0


def test_a_killed_server_is_a_fault_and_a_restarted_one_another_store(
    server: MemoryServer,
) -> None:
    pages = Pages()
    backend = pages.open(config(server, timeout_s=1.0))
    [key], [slot] = pages.keys(1), pages.filled(1)
    assert backend.set([key], [slot]) == [True]
    server.kill()
    with pytest.raises(StorageUnavailable, match="did not answer"):
        backend.get([key], [slot])
    server.start()
    with pytest.raises(StorageUnavailable, match="has restarted"):
        backend.exists([key])
    backend.close()
    again = pages.open(config(server))
    assert again.exists([key]) == [False]
    assert again.set([key], [slot]) == [True]
    again.close()


def test_a_node_takes_up_with_a_restarted_server_by_itself(server: MemoryServer) -> None:
    pages = Pages()
    store = pages.page_store(config(server, timeout_s=1.0))
    [key], [slot] = pages.keys(1), pages.filled(1)
    assert store.save([key], [slot]) == [True]
    server.kill()
    assert store.load([key], pages.blank(1)) == [None]
    server.start()
    wait_for("the page", lambda: store.save([key], [slot]) == [True])
    assert store.load([key], pages.blank(1)) == ["decode"]
    assert store.close()


def test_a_stopped_server_holds_up_a_call_no_longer_than_its_timeout(
    server: MemoryServer,
) -> None:
    pages = Pages()
    backend = pages.open(config(server, timeout_s=0.5))
    server.signal(signal.SIGSTOP)
    with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.5 s"):
        backend.exists(pages.keys(1))
    server.signal(signal.SIGCONT)
    assert backend.exists(pages.keys(1)) == [False]
    backend.close()


def test_what_was_reserved_by_a_client_that_died_is_never_visible(
    start: Callable[..., MemoryServer],
) -> None:
    server, pages = start("--lease-s", "1"), Pages()
    backend = pages.open(config(server))
    [key], [slot] = pages.keys(1), pages.filled(1)
    ask = backend._backend._control.ask
    names = [object_name(pages.namespace, key, group) for group in range(2)]
    grants = ask(Reserve(names, pages.pool.shape.object_bytes), Grants).grants
    assert backend.exists([key]) == [False]
    time.sleep(1.2)
    assert ask(Commit([grant.ticket for grant in grants]), Flags).flags == [False] * 2
    wait_for("a write in time", lambda: backend.set([key], [slot]) == [True])
    backend.close()


def test_what_was_read_after_its_lease_had_ended_is_a_counted_miss(
    start: Callable[..., MemoryServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, pages = start("--lease-s", "1"), Pages()
    backend = pages.open(config(server))
    keys, slots, others = pages.keys(2), pages.filled(2), pages.blank(2)
    wait_for("a write in time", lambda: backend.set(keys, slots) == [True] * 2)
    transfer, before = PoolAgent.transfer, backend.stats()["expired"]

    def late(*args: Any) -> None:
        transfer(*args)
        time.sleep(1.2)

    with monkeypatch.context() as slowed:
        slowed.setattr(PoolAgent, "transfer", late)
        assert backend.get(keys, others) == [False] * 2
    assert backend.stats()["expired"] == before + 4  # each of two head groups
    wait_for("a read in time", lambda: backend.get(keys, others) == [True] * 2)
    backend.close()


def test_pages_larger_than_the_segment_find_no_room(start: Callable[..., MemoryServer]) -> None:
    server, pages = start(segment_bytes=1 << 20), Pages(num_slots=80)
    num_fitting = (1 << 20) // pages.pool.shape.slot_bytes
    backend = pages.open(config(server))
    keys = pages.keys(num_fitting + 2)
    stored = backend.set(keys, pages.filled(num_fitting + 2))
    assert stored == [True] * num_fitting + [False] * 2
    assert backend.exists(keys) == stored
    assert backend.stats()["no_room"] == 2
    backend.close()


def test_the_space_of_a_page_that_fits_in_part_is_given_back(
    start: Callable[..., MemoryServer],
) -> None:
    size = Pages().pool.shape.object_bytes
    server, pages = start(segment_bytes=(1 << 20) + size), Pages(num_slots=80)
    num_fitting = (1 << 20) // (2 * size)
    backend, keys = pages.open(config(server)), pages.keys(num_fitting + 1)
    assert backend.set(keys, pages.filled(num_fitting + 1)) == [True] * num_fitting + [False]
    ask = backend._backend._control.ask
    [grant] = ask(Reserve(["another"], size), Grants).grants
    assert grant.state == "reserved"
    assert backend.exists(keys[:-1]) == [True] * num_fitting  # nothing was evicted for it
    backend.close()


def test_a_plugin_parameter_reaches_ucx(server: MemoryServer) -> None:
    with pytest.raises(StorageUnavailable, match="plugin UCX does not start"):
        Pages().open(config(server, plugin_params={"num_workers": "none"}))


def test_a_transfer_beyond_overdue_s_is_counted_and_waited_for(
    start: Callable[..., MemoryServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UCX_TLS", "tcp")  # over which a transfer is never done at once
    server, pages = start(), Pages()
    backend = pages.open(config(server, overdue_s=1e-9))
    keys, slots, others = pages.keys(8), pages.filled(8), pages.blank(8)
    assert backend.set(keys, slots) == [True] * 8 and backend.get(keys, others) == [True] * 8
    assert pages.are_equal(slots, others)
    assert backend.stats()["overdue"] >= 1
    backend.close()

"""Two masters and a real etcd: the leader dies, and the cache goes on with all its pages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from mooncake_pages import NAMESPACE, SHAPE, client
from mooncake_store import MooncakeStore, etcd, running
from running import fetch, free_port, wait_for

from kvloop.shared_cache.factory import backend_opener, open_backend
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable, StorageUnsupported

pytestmark = pytest.mark.integration

_FAIL_OVER_S = 60.0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with etcd(tmp_path) as uri:
        if uri is None:
            pytest.skip("etcd is not installed (Debian: etcd-server)")
        yield uri


@pytest.fixture
def masters(registry: str, tmp_path: Path) -> Iterator[list[MooncakeStore]]:
    """Two masters alone; the first leads."""
    with ExitStack() as stack:
        masters = []
        for i in range(2):
            log = tmp_path / f"master-{i}.log"
            flags = ("--ha", registry, "--client-ttl", "5")
            masters.append(stack.enter_context(running(MooncakeStore(log, 0, False, *flags))))
            wait_for("a leader", lambda: role(masters[0]) == "leader")
        yield masters


@pytest.fixture
def node(masters: list[MooncakeStore], registry: str, tmp_path: Path) -> Iterator[MooncakeStore]:
    """A store node apart from the masters."""
    with running(MooncakeStore(tmp_path / "node.log", 64 << 20, master=registry)) as node:
        yield node


def role(master: MooncakeStore) -> str:
    return str(fetch(f"http://127.0.0.1:{master.metrics_port}/role")[1]).strip()


def has_caught_up(standby: MooncakeStore) -> bool:
    """Whether a stand-by has applied all that the leader wrote to its log: it polls each second."""
    before = num_applied(standby)
    time.sleep(2.5)
    return 0 < before == num_applied(standby)


def num_applied(standby: MooncakeStore) -> int:
    metrics = str(fetch(f"http://127.0.0.1:{standby.metrics_port}/metrics")[1])
    name = "ha_oplog_applied_sequence_id "
    return sum(
        int(line.removeprefix(name)) for line in metrics.splitlines() if line.startswith(name)
    )


def guarded(config: dict[str, object], pool: HostPool) -> GuardedBackend:
    opener = backend_opener("mooncake", config, pool, NAMESPACE)
    guard = GuardedBackend(opener, pool, name="mooncake", namespace=NAMESPACE)
    assert guard.wait_attached(30)
    return guard


def addresses(masters: list[MooncakeStore]) -> str:
    return ",".join(f"127.0.0.1:{master.port}" for master in masters)


@pytest.mark.parametrize("by", ["registry", pytest.param("list", marks=pytest.mark.slow)])
def test_when_the_leader_dies_the_next_has_all_pages_and_nothing_of_ours_restarts(
    masters: list[MooncakeStore], node: MooncakeStore, registry: str, by: str
) -> None:
    pool = HostPool(SHAPE, 4)
    slots = pool.alloc(2)
    assert slots is not None
    where = registry if by == "registry" else addresses(masters)
    guard = guarded({"master_server_address": where}, pool)
    keys = [bytes([i]) * 32 for i in range(2)]
    for key, slot in zip(keys, slots, strict=True):
        pool.view(slot)[:] = key * (SHAPE.slot_bytes // 32)
    assert guard.set(keys, slots) == [True, True]
    assert role(masters[0]) == "leader" and role(masters[1]) == "standby"
    wait_for("the stand-by", lambda: has_caught_up(masters[1]))
    masters[0].kill()
    pool.array[:] = 0
    wait_for("the pages", lambda: guard.get(keys, slots) == [True, True], _FAIL_OVER_S)
    assert [bytes(pool.view(slot)[:32]) for slot in slots] == keys
    wait_for("new pages", lambda: guard.set([b"n" * 32], slots[:1]) == [True], _FAIL_OVER_S)
    assert role(masters[1]) == "leader" and node.process.poll() is None
    guard.close()


def test_a_list_of_masters_finds_the_leader_wherever_it_stands(
    masters: list[MooncakeStore], node: MooncakeStore
) -> None:
    config = {"master_server_address": addresses(masters[::-1])}
    with client(config) as opened:
        assert opened.backend.stats()["master_index"] == 1
        assert len(opened.put(1)) == 1


def test_the_leader_is_listed_and_a_stand_by_is_passed_over(
    masters: list[MooncakeStore], node: MooncakeStore, registry: str
) -> None:
    metrics = ",".join(f"127.0.0.1:{master.metrics_port}" for master in masters[::-1])
    config: dict[str, object] = {"master_server_address": registry}
    with client(config, master_metrics_address=metrics) as opened:
        keys = opened.put(2)
        assert sorted(o.key or b"" for o in opened.backend.objects()) == sorted(keys)
    with client(config) as opened, pytest.raises(StorageUnsupported, match="name them by"):
        list(opened.backend.objects())


def test_a_registry_without_a_leader_and_one_that_is_not_there_are_storage_errors(
    registry: str,
) -> None:
    pool = HostPool(SHAPE, 1)
    for uri, message in (
        (registry, "no leader is registered in etcd"),
        (f"etcd://127.0.0.1:{free_port()}", "no etcd answers"),
    ):
        with pytest.raises(StorageUnavailable, match=message):
            open_backend("mooncake", {"master_server_address": uri}, pool, NAMESPACE)


def test_one_command_is_a_candidate_and_a_store_node(registry: str, tmp_path: Path) -> None:
    flags = ("--ha", registry)
    with running(MooncakeStore(tmp_path / "both.log", 64 << 20, False, *flags)) as store:
        with client({"master_server_address": registry}) as opened:
            assert len(opened.put(1)) == 1
        assert store.stop() == 0


def test_clusters_in_one_etcd_are_apart(registry: str, tmp_path: Path) -> None:
    flags = ("--ha", registry, "--cluster-id", "east")
    with running(MooncakeStore(tmp_path / "east.log", 64 << 20, False, *flags)):
        with client({"master_server_address": registry}, cluster_id="east") as opened:
            assert len(opened.put(1)) == 1
        pool = HostPool(SHAPE, 1)
        with pytest.raises(StorageUnavailable, match="no leader is registered"):
            open_backend("mooncake", {"master_server_address": registry}, pool, NAMESPACE)

"""Settings of the client, as the real library shows that it took them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mooncake_pages import NAMESPACE, SHAPE, client
from mooncake_store import MooncakeStore, running
from running import fetch, free_port

from kvloop.shared_cache.factory import open_backend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable

pytestmark = pytest.mark.integration

_OPEN = """
import json, os, sys
from kvloop.shared_cache.factory import open_backend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
shape = PageShape(num_layers=1, page_size=1, num_kv_heads=1, head_size=8, itemsize=2)
try:
    open_backend("mooncake", json.loads(sys.argv[1]), HostPool(shape, 1), bytes(32))
except Exception as error:
    print(type(error).__name__, error)
print(os.environ.get("MC_GID_INDEX"))
sys.stdout.flush()
os._exit(0)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MooncakeStore]:
    """A master alone."""
    with running(MooncakeStore(tmp_path_factory.mktemp("master") / "store.log", 0)) as store:
        yield store


def opened_elsewhere(config: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """Open a backend in a process of its own: what the library reads, it reads once."""
    command = [sys.executable, "-c", _OPEN, json.dumps(config)]
    environment = {name: value for name, value in os.environ.items() if name[:3] != "MC_"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    )


def segments(store: MooncakeStore) -> str:
    return str(fetch(f"http://127.0.0.1:{store.metrics_port}/get_all_segments")[1])


def test_rdma_is_tried_on_the_named_devices_and_is_a_storage_error_without_them(
    store: MooncakeStore,
) -> None:
    rdma = {"protocol": "rdma", "device_name": ["none_0", "none_1"], "gid_index": 3}
    done = opened_elsewhere({**store.config, **rdma, "environment": {"MC_LOG_LEVEL": "INFO"}})
    assert "Using specified RDMA devices: none_0,none_1" in done.stderr
    assert "StorageUnavailable storage backend 'mooncake': setup with master" in done.stdout
    assert "are the RDMA devices (none_0,none_1) there?" in done.stdout
    assert done.stdout.splitlines()[-1] == "3"


def test_a_store_node_without_its_rdma_devices_says_so_and_ends(store: MooncakeStore) -> None:
    flags = ("--master", store.address, "--protocol", "rdma", "--device-name", "none_0")
    done = subprocess.run(
        [sys.executable, "-m", "kvloop.cli", "store", "--segment-size", "0.0625", *flags],
        env={**os.environ, "MC_LOG_LEVEL": "INFO"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "Using specified RDMA devices: none_0" in done.stderr
    assert f"mounting {64 << 20} bytes over rdma at master {store.address} failed" in done.stderr


def test_a_node_may_give_memory_under_a_name_of_its_own(store: MooncakeStore) -> None:
    name = f"127.0.0.1:{free_port()}"
    giving = {"local_hostname": name, "global_segment_size": 32 << 20}
    with client(store.config, **giving) as node:
        assert segments(store).split() == [name]
        assert len(node.put(2)) == 2
    assert segments(store).split() == []


def test_a_record_must_fit_into_the_local_buffer(store: MooncakeStore, tmp_path: Path) -> None:
    value = bytes(3 << 20)
    with running(MooncakeStore(tmp_path / "node.log", master=store.address)):
        with client(store.config) as roomy:
            assert roomy.backend.put_small("large", value)
        with client(store.config, local_buffer_size=1 << 20) as narrow:
            assert narrow.backend.get_small("large") is None


def test_a_metadata_server_that_is_not_there_is_a_storage_error(store: MooncakeStore) -> None:
    config = {**store.config, "metadata_server": f"http://127.0.0.1:{free_port()}/metadata"}
    with pytest.raises(StorageUnavailable, match=r"setup with master .* failed with"):
        open_backend("mooncake", config, HostPool(SHAPE, 1), NAMESPACE)


def test_listing_without_the_masters_http_port_says_which_field_is_wrong(
    store: MooncakeStore,
) -> None:
    with (
        client(store.config, master_metrics_port=free_port()) as node,
        pytest.raises(StorageUnavailable, match="master_metrics_port"),
    ):
        list(node.backend.objects())


def test_a_clear_waits_for_a_master_that_is_slow_with_it(tmp_path: Path) -> None:
    with running(MooncakeStore(tmp_path / "own.log")) as own, client(own.config) as node:
        keys, master = node.put(2), own.master_pid()
        assert master is not None
        os.kill(master, signal.SIGSTOP)
        waking = threading.Timer(
            4.0, os.kill, (master, signal.SIGCONT)
        )  # the library gives up at 3
        waking.start()
        node.backend.clear()
        waking.join()
        assert node.backend.exists(keys) == [False, False]


def test_a_key_twice_in_a_batch_is_read_into_both_slots(tmp_path: Path) -> None:
    with running(MooncakeStore(tmp_path / "own.log")) as own, client(own.config) as node:
        [key] = node.put(1)
        pool, slots = node.pool, [0, 1]
        pool.array[:] = 0
        assert node.backend.get([key, key], slots) == [True, True]
        assert [bytes(pool.view(slot)[:32]) for slot in slots] == [key, key]

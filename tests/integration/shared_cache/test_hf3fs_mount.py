"""hf3fs on mounts that behave as 3FS's client: several nodes, and mounts that fail."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import hf3fs_library
import pytest
from hf3fs_mount import Hf3fsMount, can_mount

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.storage_errors import StorageUnavailable

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not can_mount(), reason="mounting FUSE needs root and /dev/fuse"),
    # The library's iovec unlinks its name when it goes, and complains where the mount is gone.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SHAPE = PageShape(
    num_layers=3, page_size=16, num_kv_heads=4, head_size=16, itemsize=2, head_groups=2
)
NUM_SLOTS = 16


class Nodes:
    """Two nodes' mounts of one store, and backends on them."""

    def __init__(self, folder: Path, io: str) -> None:
        self.io = io
        self.mount = Hf3fsMount(folder / "store", folder / "a", folder / "b")
        self.pool = HostPool(SHAPE, NUM_SLOTS)
        self.namespace = secrets.token_bytes(32)
        self._opened: list[StorageBackend] = []
        for slot in range(NUM_SLOTS):
            self.pool.view(slot)[:] = os.urandom(SHAPE.slot_bytes)

    def config(self, node: int) -> dict[str, object]:
        return {"mount": str(self.mount.points[node]), "io": self.io}

    def open(self, node: int = 0) -> StorageBackend:
        backend = backend_opener("hf3fs", self.config(node), self.pool, self.namespace)()
        self._opened.append(backend)
        return backend

    def close(self) -> None:
        for backend in self._opened:
            backend.close()
        self.mount.close()


@pytest.fixture(params=["posix", "usrbio"])
def nodes(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Nodes]:
    hf3fs_library.install(monkeypatch)
    nodes = Nodes(tmp_path, request.param)
    yield nodes
    nodes.close()


def new_keys(n: int) -> list[bytes]:
    return [secrets.token_bytes(32) for _ in range(n)]


def test_a_page_is_whole_on_another_node_at_once(nodes: Nodes) -> None:
    writer, reader = nodes.open(0), nodes.open(1)
    keys = new_keys(4)
    assert writer.set(keys, [0, 1, 2, 3]) == [True] * 4
    assert reader.exists(keys) == [True] * 4
    assert reader.get(keys, [4, 5, 6, 7]) == [True] * 4
    for slot in range(4):
        assert bytes(nodes.pool.view(slot + 4)) == bytes(nodes.pool.view(slot))


def test_a_page_whose_length_is_not_settled_gets_no_name(nodes: Nodes) -> None:
    backend = nodes.open()
    nodes.mount.fail("FLUSH", errno.EIO)
    with pytest.raises(StorageUnavailable):
        backend.set(new_keys(2), [0, 1])
    assert not list(nodes.mount.backing.glob("kvloop/kvl1/*/??/??/*"))


def test_a_record_whose_length_is_not_settled_replaces_none(nodes: Nodes) -> None:
    backend = nodes.open()
    backend.put_small("record", b"old")
    nodes.mount.fail("FLUSH", errno.EIO)
    with pytest.raises(StorageUnavailable):
        backend.put_small("record", b"new")
    nodes.mount.mend()
    assert backend.get_small("record") == b"old"


def test_of_two_nodes_the_first_to_write_a_page_wins(nodes: Nodes) -> None:
    first, second = nodes.open(0), nodes.open(1)
    keys = new_keys(2)
    assert second.exists(keys) == [False, False]  # its kernel will believe this for a while
    assert first.set(keys, [0, 1]) == [True, True]
    assert second.set(keys, [2, 3]) == [True, True]
    assert first.get(keys, [4, 5]) == [True, True]
    assert bytes(nodes.pool.view(4)) == bytes(nodes.pool.view(0))
    assert bytes(nodes.pool.view(5)) == bytes(nodes.pool.view(1))


def test_a_page_that_another_node_removed_is_a_miss_while_its_name_is_remembered(
    nodes: Nodes,
) -> None:
    writer, reader = nodes.open(0), nodes.open(1)
    keys = new_keys(2)
    writer.set(keys, [0, 1])
    assert reader.get(keys, [4, 5]) == [True, True]
    assert writer.delete(keys) == [True, True]
    assert reader.get(keys, [4, 5]) == [False, False]
    assert reader.stats()["short_reads"] > 0


def test_a_record_that_another_node_replaced_is_read_whole(nodes: Nodes) -> None:
    writer, reader = nodes.open(0), nodes.open(1)
    for value in (b"one", b"two two", b"", b"x" * 5000):
        assert writer.put_small("record", value)
        assert reader.get_small("record") == value


def test_a_damaged_record_is_none_and_is_counted(nodes: Nodes) -> None:
    backend = nodes.open()
    backend.put_small("record", b"value")
    [path] = nodes.mount.backing.glob("kvloop/kvl1/*/small/*")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(StorageUnavailable, match="damaged record"):
        backend.get_small("record")
    assert backend.put_small("record", b"again")
    assert backend.get_small("record") == b"again"


def test_without_hard_links_pages_are_renamed(nodes: Nodes) -> None:
    backend = nodes.open()
    nodes.mount.fail("LINK", errno.EPERM)
    keys = new_keys(3)
    assert backend.set(keys, [0, 1, 2]) == [True] * 3
    assert backend.get(keys, [3, 4, 5]) == [True] * 3
    assert nodes.mount.counts()["RENAME"] == 3 * SHAPE.head_groups


def test_drafts_are_gone_after_a_set(nodes: Nodes) -> None:
    backend = nodes.open()
    backend.set(new_keys(3), [0, 1, 2])
    nodes.mount.fail("LINK", errno.EIO)
    with pytest.raises(StorageUnavailable):
        backend.set(new_keys(3), [0, 1, 2])
    assert not list(nodes.mount.backing.glob("kvloop/kvl1/*/tmp/*"))


@pytest.mark.parametrize("op", ["CREATE", "WRITE"])
def test_a_full_store_is_false_and_no_error(nodes: Nodes, op: str) -> None:
    backend = nodes.open()
    keys = new_keys(2)
    nodes.mount.fail(op, errno.ENOSPC)
    assert backend.set(keys, [0, 1]) == [False, False]
    assert backend.stats()["no_room"] > 0
    nodes.mount.mend()
    assert backend.set(keys, [0, 1]) == [True, True]


@pytest.mark.parametrize(("op", "number"), [("READ", errno.EIO), ("OPEN", errno.EIO)])
def test_a_store_that_cannot_be_read_is_unavailable(nodes: Nodes, op: str, number: int) -> None:
    backend = nodes.open()
    keys = new_keys(2)
    backend.set(keys, [0, 1])
    nodes.mount.fail(op, number)
    with pytest.raises(StorageUnavailable):
        backend.get(keys, [2, 3])
    nodes.mount.mend()
    assert backend.get(keys, [2, 3]) == [True, True]


def test_a_dead_client_is_unavailable(nodes: Nodes) -> None:
    backend = nodes.open()
    keys = new_keys(1)
    backend.set(keys, [0])
    nodes.mount.kill()
    for call in (
        lambda: backend.exists(keys),
        lambda: backend.get(keys, [1]),
        lambda: backend.set(new_keys(1), [0]),
        lambda: backend.get_small("record"),
        lambda: nodes.open(),
    ):
        with pytest.raises(StorageUnavailable):
            call()


def test_a_mount_that_is_taken_away_is_unavailable_and_nothing_is_written_below(
    nodes: Nodes,
) -> None:
    backend = nodes.open()
    backend.set(new_keys(1), [0])
    nodes.mount.unmount()
    with pytest.raises(StorageUnavailable):
        backend.set(new_keys(1), [0])
    with pytest.raises(StorageUnavailable, match="3FS is not mounted there"):
        nodes.open()
    assert not list(nodes.mount.points[0].iterdir())


def test_a_guarded_store_comes_back_with_its_mount(nodes: Nodes, tmp_path: Path) -> None:
    opener = backend_opener("hf3fs", nodes.config(0), nodes.pool, nodes.namespace)
    guard = GuardedBackend(opener, nodes.pool, name="hf3fs", namespace=nodes.namespace)
    assert guard.wait_attached(10)
    pages = PageStore(guard, nodes.pool, namespace=nodes.namespace, writer="decode")
    slots = nodes.pool.alloc(4)
    assert slots is not None
    keys = new_keys(2)
    assert pages.save(keys, slots[:2]) == [True, True]
    nodes.mount.close()
    assert pages.load(keys, slots[2:]) == [None, None]
    nodes.mount = Hf3fsMount(tmp_path / "store", tmp_path / "a", tmp_path / "b")
    assert guard.wait_attached(30)
    assert pages.load(keys, slots[2:]) == ["decode", "decode"]
    pages.close()


def test_pages_of_one_way_of_io_are_read_by_the_other(nodes: Nodes) -> None:
    keys = new_keys(3)
    assert nodes.open(0).set(keys, [0, 1, 2]) == [True] * 3
    nodes.io = {"posix": "usrbio", "usrbio": "posix"}[nodes.io]
    assert nodes.open(1).get(keys, [3, 4, 5]) == [True] * 3
    assert bytes(nodes.pool.view(5)) == bytes(nodes.pool.view(2))


def test_opening_writes_nothing_for_a_namespace(nodes: Nodes) -> None:
    nodes.open().exists(new_keys(2))
    assert not list(nodes.mount.backing.glob("kvloop/*"))

"""NIXL's POSIX plugin on real files: what it cannot tell apart is told apart here."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nixl_pages import Pages

from kvloop.shared_cache.backends.directory.page_io import Transfer
from kvloop.shared_cache.backends.nixl.agent import PoolAgent
from kvloop.shared_cache.backends.nixl.file_io import NixlIO
from kvloop.shared_cache.backends.nixl.library import load_nixl, new_agent
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.storage_errors import StorageUnavailable

pytestmark = pytest.mark.integration
pytest.importorskip("nixl_cu12", reason="install nixl-cu12")


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def io(pages: Pages) -> Iterator[NixlIO]:
    io = NixlIO(PoolAgent("POSIX", {}, pages.pool, 30.0), pages.pool, is_direct=False)
    yield io
    io.close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    flags = os.O_RDWR | os.O_CREAT
    fds = [os.open(tmp_path / str(i), flags, 0o600) for i in range(4)]
    yield fds
    for fd in fds:
        os.close(fd)


def transfers(fds: list[int], slots: list[int]) -> list[Transfer]:
    return [Transfer(fd, slot, 1) for fd, slot in zip(fds, slots, strict=True)]


def test_a_batch_goes_and_comes_in_one_request_each(
    pages: Pages, io: NixlIO, files: list[int]
) -> None:
    size = pages.pool.shape.object_bytes
    slots, others = pages.filled(4), pages.blank(4)
    assert io.write(transfers(files, slots)) == [size] * 4
    assert io.read(transfers(files, others)) == [size] * 4
    for slot, other in zip(slots, others, strict=True):
        assert bytes(pages.pool.group_view(slot, 1)) == bytes(pages.pool.group_view(other, 1))
        assert not any(pages.pool.group_view(other, 0))
    assert io.num_plain == 0 and io.num_overdue == 0


def test_a_short_file_among_whole_ones_is_short_and_the_others_are_read(
    pages: Pages, io: NixlIO, files: list[int]
) -> None:
    size = pages.pool.shape.object_bytes
    slots, others = pages.filled(4), pages.blank(4)
    io.write(transfers(files, slots))
    os.ftruncate(files[2], 100)
    assert io.read(transfers(files, others)) == [size, size, 100, size]
    assert bytes(pages.pool.group_view(others[3], 1)) == bytes(pages.pool.group_view(slots[3], 1))
    assert io.num_plain == 4


def test_a_file_that_cannot_be_written_tells_why(
    pages: Pages, io: NixlIO, files: list[int], tmp_path: Path
) -> None:
    size, slots = pages.pool.shape.object_bytes, pages.filled(3)
    read_only = os.open(tmp_path / "0", os.O_RDONLY)
    full = os.open("/dev/full", os.O_RDWR)
    try:
        lengths = io.write(transfers([read_only, full, files[1]], slots))
    finally:
        os.close(read_only)
        os.close(full)
    assert lengths == [-errno.EBADF, -errno.ENOSPC, size]


@pytest.mark.parametrize("queue", ["use_aio", "use_uring"])
def test_a_failed_request_does_not_spoil_the_later_ones(
    pages: Pages, files: list[int], tmp_path: Path, queue: str
) -> None:
    io = NixlIO(PoolAgent("POSIX", {queue: "true"}, pages.pool, 30.0), pages.pool, is_direct=False)
    size, slots = pages.pool.shape.object_bytes, pages.filled(4)
    write_only = os.open(tmp_path / "0", os.O_WRONLY)
    assert io.write(transfers(files, slots)) == [size] * 4
    assert io.read(transfers([write_only], slots[:1])) == [-errno.EBADF]
    assert io.read(transfers(files, slots)) == [size] * 4
    assert io.num_plain == 1
    os.close(write_only)
    io.close()


def test_a_forgotten_descriptor_may_be_another_file_next(
    pages: Pages, io: NixlIO, tmp_path: Path
) -> None:
    size = pages.pool.shape.object_bytes
    [slot], [other] = pages.filled(1), pages.blank(1)
    for name in ("first", "second"):
        fd = os.open(tmp_path / name, os.O_RDWR | os.O_CREAT, 0o600)
        assert io.write([Transfer(fd, slot, 0)]) == [size]
        assert io.read([Transfer(fd, other, 0)]) == [size]
        io.forget(fd)
        os.close(fd)
        assert (tmp_path / name).stat().st_size == size


def test_every_file_and_the_pool_are_deregistered(
    pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = type(new_agent(load_nixl(), "asks"))
    register, deregister = agent.register_memory, agent.deregister_memory
    held: list[int] = []

    def registers(self: Any, *args: Any) -> Any:
        held.append(1)
        return register(self, *args)

    def deregisters(self: Any, *args: Any) -> Any:
        held.pop()
        return deregister(self, *args)

    monkeypatch.setattr(agent, "register_memory", registers)
    monkeypatch.setattr(agent, "deregister_memory", deregisters)
    backend = pages.open({"plugin": "POSIX", "root": str(tmp_path / "l3")})
    keys = pages.keys(3)
    assert backend.set(keys, pages.filled(3)) == [True] * 3
    assert backend.get(keys, pages.blank(3)) == [True] * 3
    assert len(held) == 1  # the pool
    backend.close()
    assert not held


def test_an_io_queue_is_chosen_by_a_plugin_parameter(pages: Pages, tmp_path: Path) -> None:
    def num_rings() -> int:
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in _open_fds()]
        return sum("io_uring" in link for link in links)

    config = {"plugin": "POSIX", "root": str(tmp_path / "l3")}
    before = num_rings()
    plain = pages.open(config)
    assert num_rings() == before
    ring = pages.open({**config, "plugin_params": {"use_uring": True}})
    assert num_rings() == before + 1
    plain.close()
    ring.close()
    assert num_rings() == before


def test_a_transfer_beyond_overdue_s_is_counted_and_waited_for(
    pages: Pages, tmp_path: Path
) -> None:
    config = {"plugin": "POSIX", "root": str(tmp_path / "l3"), "overdue_s": 1e-9}
    backend = pages.open(config)
    assert backend.set(pages.keys(2), pages.filled(2)) == [True] * 2
    assert backend.stats()["overdue"] == 1
    backend.close()


def test_nothing_mounted_is_a_store_that_is_not_there(pages: Pages, tmp_path: Path) -> None:
    config = {"plugin": "POSIX", "root": str(tmp_path / "l3"), "mount_point": str(tmp_path)}
    with pytest.raises(StorageUnavailable, match="nothing is mounted"):
        pages.open(config)


@pytest.mark.parametrize(("direct", "is_direct"), [("on", True), ("off", False)])
def test_the_page_cache_is_passed_by_as_the_config_says(
    pages: Pages, tmp_path: Path, direct: str, is_direct: bool
) -> None:
    config = {"plugin": "POSIX", "root": str(tmp_path / "l3"), "direct": direct}
    backend = pages.open(config)
    assert backend._backend._nixl.is_direct is is_direct
    backend.close()


def test_a_plugin_parameter_that_there_is_not_is_named(pages: Pages, tmp_path: Path) -> None:
    config = {"plugin": "POSIX", "root": str(tmp_path), "plugin_params": {"use_magic": True}}
    with pytest.raises(ConfigError, match=r"'use_magic'; POSIX knows: .*use_uring"):
        pages.open(config)


@pytest.mark.parametrize("plugin", ["GDS", "GDS_MT", "HF3FS"])
def test_a_plugin_that_cannot_run_here_is_refused_at_once(
    pages: Pages, tmp_path: Path, plugin: str
) -> None:
    if new_agent(load_nixl(), "asks").get_plugin_mem_types(plugin):
        pytest.skip(f"{plugin} can be loaded here")
    with pytest.raises(ConfigError, match=f"plugin '{plugin}' (cannot be loaded|is not in)"):
        pages.open({"plugin": plugin, "root": str(tmp_path)})


def _open_fds() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]

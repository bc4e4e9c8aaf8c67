"""The backend `nixl` does all that a backend must: on files, S3, and a memory server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nixl_memory import MemoryServer
from s3_server import S3Server

from kvloop.shared_cache.conformance import BackendConformance, BackendSpec

pytestmark = pytest.mark.integration
pytest.importorskip("nixl_cu12", reason="install nixl-cu12")


def posix(root: Path, **fields: Any) -> BackendSpec:
    config = {"plugin": "POSIX", "root": str(root / "l3"), **fields}
    return BackendSpec(name="nixl", extra_config=config, can_list=True)


class TestPosix(BackendConformance):
    """Linux AIO, which the plugin takes by itself, on files open with O_DIRECT."""

    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        return posix(tmp_path, direct="on")

    @pytest.fixture
    def bounded(self, tmp_path: Path) -> Callable[[int], BackendSpec]:
        return lambda num_bytes: posix(tmp_path, capacity_bytes=num_bytes)


@pytest.mark.slow  # the same code but for the plugin's own queue
class TestPosixUring(BackendConformance):
    """io_uring through the page cache."""

    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        return posix(tmp_path, direct="off", plugin_params={"use_uring": True})


def ucx(server: MemoryServer) -> BackendSpec:
    config = {"plugin": "UCX", "server": server.address}
    # The server keeps lengths apart: a page of another one is not there.
    return BackendSpec(name="nixl", extra_config=config, can_list=True, can_tell_misfits=False)


@pytest.fixture(scope="module")
def memory_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryServer]:
    server = MemoryServer(tmp_path_factory.mktemp("nixl") / "server.log")
    yield server
    server.stop()


class TestUcx(BackendConformance):
    """A memory server in another process."""

    @pytest.fixture
    def spec(self, memory_server: MemoryServer) -> BackendSpec:
        return ucx(memory_server)

    @pytest.fixture
    def bounded(self, tmp_path: Path) -> Iterator[Callable[[int], BackendSpec]]:
        started = []

        def bounded_to(num_bytes: int) -> BackendSpec:
            started.append(MemoryServer(tmp_path / "bounded.log", segment_bytes=num_bytes))
            return ucx(started[-1])

        yield bounded_to
        for server in started:
            server.stop()


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    pytest.importorskip("moto", reason="install moto, flask and flask-cors")
    server = S3Server(tmp_path_factory.mktemp("s3") / "server.log")
    yield server
    server.stop()


@pytest.mark.slow  # the server takes some 20 ms for each request; see test_nixl_objects
class TestObjects(BackendConformance):
    """An S3 server in another process."""

    @pytest.fixture
    def spec(self, s3_server: S3Server) -> BackendSpec:
        # moto answers a thousand requests in some 20 s on a busy machine.
        return BackendSpec(
            name="nixl", extra_config=s3_server.config(), can_list=True, call_deadline_s=120.0
        )

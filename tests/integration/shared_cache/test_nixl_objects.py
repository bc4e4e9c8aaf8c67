"""NIXL's OBJ plugin on a real S3 server: damage, a dead server, a bucket that is not there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nixl_pages import Pages
from s3_server import SECRET_KEY, S3Server

from kvloop.shared_cache.backend_config import parse_backend_config
from kvloop.shared_cache.backends.nixl.config import ObjectConfig
from kvloop.shared_cache.backends.nixl.s3_bucket import S3Bucket
from kvloop.shared_cache.page_object import object_name
from kvloop.shared_cache.storage_errors import StorageUnavailable

pytestmark = pytest.mark.integration
pytest.importorskip("nixl_cu12", reason="install nixl-cu12")
pytest.importorskip("moto", reason="install moto, flask and flask-cors")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    server = S3Server(tmp_path / "s3.log")
    yield server
    server.stop()


@pytest.fixture
def pages() -> Pages:
    return Pages()


def bucket(config: dict[str, object]) -> S3Bucket:
    return S3Bucket(parse_backend_config("nixl", config, ObjectConfig))


@pytest.mark.parametrize("num_bytes", [0, 100, 4096, -1])
def test_an_object_that_is_too_short_is_a_miss_and_can_be_written_again(
    server: S3Server, pages: Pages, num_bytes: int
) -> None:
    backend, keys, slots = pages.open(server.config()), pages.keys(3), pages.filled(3)
    assert backend.set(keys, slots) == [True] * 3
    name = object_name(pages.namespace, keys[1], 1)
    bucket(server.config()).put(name, bytes(pages.pool.shape.object_bytes)[:num_bytes])
    others = pages.blank(3)
    assert backend.get(keys, others) == [True, False, True]
    assert backend.stats()["misfits"] == 1
    assert backend.set(keys, slots) == [True] * 3
    assert backend.get(keys, others) == [True] * 3 and pages.are_equal(slots, others)
    backend.close()


def test_a_server_that_is_not_there_is_said_so_at_opening(server: S3Server, pages: Pages) -> None:
    server.stop()
    with pytest.raises(StorageUnavailable, match=r"bucket 'kvloop-pages' at 127\.0\.0\.1"):
        pages.open(server.config())


def test_a_server_that_dies_is_a_fault_of_the_store(server: S3Server, pages: Pages) -> None:
    backend, [key], [slot] = pages.open(server.config()), pages.keys(1), pages.filled(1)
    assert backend.set([key], [slot]) == [True]
    server.stop()
    with pytest.raises(StorageUnavailable):
        backend.exists([key])
    with pytest.raises(StorageUnavailable):
        backend.get_small("record")
    with pytest.raises(StorageUnavailable):
        backend.probe()
    backend.close()


def test_a_bucket_that_is_not_there_is_named(server: S3Server, pages: Pages) -> None:
    with pytest.raises(StorageUnavailable, match=r"'no-such-bucket' .* 404 NoSuchBucket"):
        pages.open({**server.config(), "bucket": "no-such-bucket"})


def test_the_secret_key_is_in_no_error(server: S3Server, pages: Pages) -> None:
    config = {**server.config(), "bucket": "no-such-bucket", "region": SECRET_KEY}
    with pytest.raises(StorageUnavailable) as raised:
        pages.open(config)
    assert SECRET_KEY not in str(raised.value)


def test_num_threads_bounds_the_requests_of_our_own(server: S3Server, pages: Pages) -> None:
    def num_threads() -> int:
        return sum(thread.name.startswith("l3-s3") for thread in threading.enumerate())

    before = num_threads()
    backend = pages.open({**server.config(), "num_threads": 3})
    assert num_threads() == before + 3
    backend.close()


@pytest.mark.slow
def test_a_listing_goes_on_past_a_thousand_objects(server: S3Server) -> None:
    store = bucket(server.config())
    for i in range(1003):
        store.put(f"many-{i:04}", b"x")
    store.put("other", b"x")
    assert [found.name for found in store.objects("many-")] == [f"many-{i:04}" for i in range(1003)]


def test_a_server_that_says_nothing_holds_up_a_request_for_timeout_s() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = {
            "plugin": "OBJ",
            "bucket": "pages",
            "endpoint_override": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "access_key": "a",
            "secret_key": "b",
            "timeout_s": 0.2,
        }
        start = time.monotonic()
        with pytest.raises(StorageUnavailable, match="timed out"):
            bucket(config).check()
        assert time.monotonic() - start < 5.0  # the default is 10 s

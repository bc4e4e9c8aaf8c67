"""S3 requests of our own: signed as in AWS's worked example, and sent where the config says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from kvloop.shared_cache.backends.nixl.config import ObjectConfig
from kvloop.shared_cache.backends.nixl.s3_bucket import S3Bucket
from kvloop.shared_cache.backends.nixl.s3_signature import (
    Credentials,
    query_string,
    signed_headers,
)
from kvloop.shared_cache.storage_errors import StorageUnavailable

# "Example: GET Bucket (List Objects)" of the S3 API reference, Signature Version 4.
EXAMPLE = Credentials(
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "", "us-east-1"
)
HOST = "examplebucket.s3.amazonaws.com"
QUERY = {"max-keys": "2", "prefix": "J"}
WHEN = datetime(2013, 5, 24, tzinfo=UTC)
SIGNATURE = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"


def test_the_signature_is_that_of_the_published_example() -> None:
    headers = signed_headers(EXAMPLE, "GET", HOST, "/", QUERY, b"", WHEN)
    assert headers["authorization"].endswith(f"Signature={SIGNATURE}")
    assert (
        "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
        in (headers["authorization"])
    )


def test_the_time_is_signed_in_utc() -> None:
    elsewhere = WHEN.astimezone(timezone(timedelta(hours=9)))
    headers = signed_headers(EXAMPLE, "GET", HOST, "/", QUERY, b"", elsewhere)
    assert headers["authorization"].endswith(SIGNATURE)


def test_a_session_token_is_sent_and_signed() -> None:
    headers = signed_headers(
        EXAMPLE._replace(session_token="temporary"), "GET", HOST, "/", QUERY, b"", WHEN
    )
    assert headers["x-amz-security-token"] == "temporary"
    assert "x-amz-security-token" in headers["authorization"]


def test_a_query_is_sorted_and_quoted_as_aws_wants_it() -> None:
    assert query_string({"b": "x y/z", "a": "1+2~"}) == "a=1%2B2~&b=x%20y%2Fz"


def test_credentials_show_nothing() -> None:
    assert repr(EXAMPLE) == "Credentials(***)" and "wJal" not in f"{EXAMPLE}"


class _Recorder:
    """Stands where the connection would be made, and keeps what would have been sent."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    def connect(self, host: str, timeout: float) -> _Recorder:
        self.hosts.append(host)
        return self

    def request(self, method: str, target: str, body: object, headers: dict[str, str]) -> None:
        self.requests.append((method, target, headers))
        raise OSError("goes no further")

    def close(self) -> None:
        pass


def sent(monkeypatch: pytest.MonkeyPatch, **fields: object) -> tuple[str, str, dict[str, str]]:
    """Host, target and headers of the request for an object's size."""
    recorder = _Recorder()
    monkeypatch.setattr("http.client.HTTPConnection", recorder.connect)
    config = ObjectConfig(
        plugin="OBJ",
        bucket="pages",
        endpoint_override="http://s3.example:9000",
        access_key="A",
        secret_key="B",
        **fields,  # type: ignore[arg-type]
    )
    with pytest.raises(StorageUnavailable, match="goes no further"):
        S3Bucket(config).size("kvl1-x")
    [host], [(_, target, headers)] = recorder.hosts, recorder.requests
    return host, target, headers


def test_the_bucket_is_in_the_path_or_in_the_hosts_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sent(monkeypatch)[:2] == ("s3.example:9000", "/pages/kvl1-x")
    virtual = sent(monkeypatch, use_virtual_addressing=True)
    assert virtual[:2] == ("pages.s3.example:9000", "/kvl1-x")
    assert virtual[2]["host"] == "pages.s3.example:9000"


def test_region_and_session_token_are_signed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = sent(monkeypatch, region="eu-north-1", session_token="temporary")[2]
    assert "/eu-north-1/s3/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "temporary"


@pytest.fixture
def cut_off() -> Iterator[S3Bucket]:
    """A bucket whose server promises ten bytes, sends five, and is gone."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf-")

    thread = threading.Thread(target=answer)
    thread.start()
    config = ObjectConfig(
        plugin="OBJ",
        bucket="pages",
        endpoint_override=f"http://127.0.0.1:{listener.getsockname()[1]}",
        access_key="A",
        secret_key="B",
    )
    yield S3Bucket(config)
    thread.join()
    listener.close()


def test_a_record_that_is_cut_off_on_its_way_is_a_fault_and_no_record(cut_off: S3Bucket) -> None:
    with pytest.raises(StorageUnavailable, match=r"IncompleteRead\(5 bytes"):
        cut_off.get("kvl1-x")

"""What NIXL's OBJ plugin has no operation for: delete, list, sizes and records of an S3 bucket."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from kvloop.shared_cache.backends.nixl.config import ObjectConfig
from kvloop.shared_cache.backends.nixl.s3_signature import Credentials, query_string, signed_headers
from kvloop.shared_cache.storage_errors import StorageUnavailable

MAX_RECORD_BYTES = 16 << 20  # of any reply
_PAUSES_S = (0.05, 0.2)  # before each further try where S3 says that it is at fault (5xx)


class S3Object(NamedTuple):
    """One object of a listing."""

    name: str
    num_bytes: int
    changed_at: float
    """Seconds since the epoch."""


class _Reply(NamedTuple):
    status: int
    length: int
    """As the server states it; of HEAD, the object's."""
    body: bytes


class S3Bucket:
    """One request a connection, each with a deadline; thread-safe. Raises StorageUnavailable."""

    def __init__(self, config: ObjectConfig) -> None:
        url = urlsplit(config.endpoint_override)
        self._timeout_s = config.timeout_s
        self._tls: ssl.SSLContext | None = None
        if url.scheme == "https":
            bundle = config.plugin_params.get("ca_bundle")
            self._tls = ssl.create_default_context(cafile=str(bundle) if bundle else None)
        is_virtual = config.use_virtual_addressing
        self._host = f"{config.bucket}.{url.netloc}" if is_virtual else url.netloc
        self._root = "/" if is_virtual else f"/{config.bucket}/"
        self._where = f"storage backend 'nixl': bucket {config.bucket!r} at {url.netloc}"
        self._credentials = Credentials(
            config.access_key, config.secret_key, config.session_token, config.region
        )

    def check(self) -> None:
        """Raise where the bucket cannot be listed."""
        self._require(self._request("GET", query={"list-type": "2", "max-keys": "1"}), 200)

    def size(self, name: str) -> int | None:
        """Bytes of an object; None where there is none."""
        reply = self._require(self._request("HEAD", name), 200, 404)
        return reply.length if reply.status == 200 else None

    def get(self, name: str) -> bytes | None:
        """A record's content; None where there is none, or what is there is too long for one."""
        reply = self._require(self._request("GET", name), 200, 404)
        is_record = reply.status == 200 and reply.length <= MAX_RECORD_BYTES
        return reply.body if is_record else None

    def put(self, name: str, value: bytes) -> None:
        """Store an object; the last put wins."""
        self._require(self._request("PUT", name, body=value), 200)

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""
        self._require(self._request("DELETE", name), 200, 204, 404)

    def objects(self, prefix: str) -> Iterator[S3Object]:
        """All objects whose names start so."""
        query = {"list-type": "2", "prefix": prefix}
        while True:
            body = self._require(self._request("GET", query=query), 200).body
            try:
                listing = ElementTree.fromstring(body)
                yield from (_listed(entry) for entry in listing.findall("{*}Contents"))
                token = listing.findtext("{*}NextContinuationToken")
            except (ElementTree.ParseError, ValueError) as error:
                raise StorageUnavailable(f"{self._where}: listing: {error}") from error
            if not token:
                return
            query = {**query, "continuation-token": token}

    def _request(
        self,
        method: str,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> _Reply:
        for pause_s in _PAUSES_S:
            reply = self._request_once(method, name, query or {}, body)
            if reply.status < 500:
                return reply
            time.sleep(pause_s)
        return self._request_once(method, name, query or {}, body)

    def _request_once(
        self, method: str, name: str, query: Mapping[str, str], body: bytes
    ) -> _Reply:
        path = self._root + quote(name, safe="/-_.~")
        now = datetime.now(UTC)
        args = (method, self._host, path, query, body, now)
        headers = signed_headers(self._credentials, *args)
        target = f"{path}?{query_string(query)}" if query else path
        try:
            connection = self._connect()
            try:
                connection.request(method, target, body or None, headers)
                reply = connection.getresponse()
                length = int(reply.headers.get("content-length") or 0)
                body = reply.read(MAX_RECORD_BYTES)
                expected = 0 if method == "HEAD" else min(length, MAX_RECORD_BYTES)
                if len(body) < expected:  # the library takes a lost connection for the end
                    raise http.client.IncompleteRead(body, expected - len(body))
                return _Reply(reply.status, length, body)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StorageUnavailable(f"{self._where}: {method}: {error}") from error

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, timeout=self._timeout_s)
        return http.client.HTTPSConnection(self._host, timeout=self._timeout_s, context=self._tls)

    def _require(self, reply: _Reply, *statuses: int) -> _Reply:
        is_missing_bucket = b"<Code>NoSuchBucket</Code>" in reply.body
        if reply.status not in statuses or is_missing_bucket:
            raise StorageUnavailable(
                f"{self._where}: HTTP {reply.status} {_error_code(reply.body)}"
            )
        return reply


def _listed(entry: ElementTree.Element) -> S3Object:
    changed = datetime.fromisoformat(entry.findtext("{*}LastModified") or "")
    size = int(entry.findtext("{*}Size") or "")
    return S3Object(entry.findtext("{*}Key") or "", size, changed.timestamp())


def _error_code(body: bytes) -> str:
    try:
        return ElementTree.fromstring(body).findtext("{*}Code") or ""
    except ElementTree.ParseError:
        return ""

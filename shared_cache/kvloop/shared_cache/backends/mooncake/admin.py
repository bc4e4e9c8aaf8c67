"""The master's HTTP port: what the client library cannot ask."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice

from kvloop.shared_cache.storage_errors import StorageUnavailable, StorageUnsupported

_TIMEOUT_S = 10.0
_NAMES_PER_QUERY = 64  # at about 136 characters each
_UNAVAILABLE = 503  # a stand-by


class MasterAdmin:
    """Asks the master that serves, of those at the addresses; one thread at a time."""

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self._addresses = addresses

    def object_sizes(self) -> Iterator[tuple[str, int]]:
        """(name, bytes of one copy) of each object, in no order; of the default tenant only.

        Nothing is leased or promoted by it. Raises StorageUnavailable where no master answers.
        """
        with closing(self._connect()) as connection:
            names = iter(_get(connection, "/get_all_keys").decode().splitlines())
            while batch := list(islice(names, _NAMES_PER_QUERY)):
                yield from _sizes(connection, [name for name in batch if _is_plain(name)])

    def _connect(self) -> http.client.HTTPConnection:
        if not self._addresses:
            raise StorageUnsupported(
                "storage backend 'mooncake': listing asks the masters over HTTP: name them by "
                "master_metrics_address, host:port, several with commas"
            )
        errors = []
        for host, port in self._addresses:
            connection = http.client.HTTPConnection(host.strip("[]"), port, timeout=_TIMEOUT_S)
            try:
                _get(connection, "/get_all_segments")
            except StorageUnavailable as error:
                connection.close()
                errors.append(f"{host}:{port}: {error}")
            else:
                return connection
        raise StorageUnavailable(
            "storage backend 'mooncake': no master answers over HTTP, which listing needs "
            f"(master_metrics_port): {'; '.join(errors)}"
        )


def _sizes(
    connection: http.client.HTTPConnection, names: Sequence[str]
) -> Iterator[tuple[str, int]]:
    if not names:
        return
    reply = json.loads(_get(connection, f"/batch_query_keys?keys={','.join(names)}"))
    for name, found in reply["data"].items():
        if found["ok"]:
            yield name, _size(found)


def _size(found: dict[str, list[dict[str, int]] | None]) -> int:
    """Of the first copy; 0 of an object that is just being written."""
    for kind, field in _COPIES.items():
        for copy in found.get(kind) or ():
            return copy[field]
    return 0


_COPIES = {"values": "size_", "local_disk_values": "object_size", "disk_values": "object_size"}


def _is_plain(name: str) -> bool:
    """Whether a name can be asked for as it is; all of kvloop's can."""
    return name.isascii() and name.replace("-", "").isalnum()


def _get(connection: http.client.HTTPConnection, path: str) -> bytes:
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        body = reply.read()
    except (OSError, http.client.HTTPException) as error:
        raise StorageUnavailable(f"storage backend 'mooncake': listing: {error}") from error
    if reply.status != http.client.OK:
        raise StorageUnavailable(
            "a stand-by" if reply.status == _UNAVAILABLE else f"status {reply.status} for {path}"
        )
    return body

"""Where the masters of a Mooncake store are, and which of them to ask."""

from __future__ import annotations

import socket
from typing import NamedTuple

from kvloop.shared_cache.backends.mooncake.registry import leader_of
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.storage_errors import StorageUnavailable

_HOST_PORT = r"[^/\s,;]+:\d+"
_URI = r"(etcd|redis|k8s)://[^\s,]+"
MASTERS_PATTERN = rf"^({_URI}|{_HOST_PORT}(,{_HOST_PORT})*)$"
_CONNECT_TIMEOUT_S = 1.0

Address = tuple[str, int]


class Masters(NamedTuple):
    """Either a URI of where the leader is registered, or addresses to be tried in order.

    Only the leader of masters in HA listens, so that a list of these finds it, too.
    """

    uri: str | None
    addresses: list[Address]
    """Of the masters; none where there is a URI."""


class Choice(NamedTuple):
    """The master to connect to."""

    entry: str
    """As the library takes it."""
    position: int
    """In the list of addresses; 0 where there is a URI."""


def parse_masters(text: str) -> Masters:
    """Parse what matches MASTERS_PATTERN; raises ConfigError where a port is none."""
    if "://" in text:
        return Masters(text, [])
    return Masters(None, parse_addresses("master_server_address", text))


def parse_addresses(field: str, text: str) -> list[Address]:
    """`host:port`, several with commas; raises ConfigError naming the field."""
    return [_parse_address(field, part) for part in text.split(",")]


def choose_master(masters: Masters, cluster_id: str = "") -> Choice:
    """One that listens; raises StorageUnavailable where none does.

    The library itself takes seconds to say so, and Python stands still meanwhile.
    """
    addresses = masters.addresses
    if masters.uri is not None:
        endpoints = registry_addresses(masters.uri)
        if not masters.uri.startswith("etcd://"):
            return Choice(masters.uri, 0)
        addresses = [leader_of(endpoints, cluster_id)]
    errors = []
    for i, (host, port) in enumerate(addresses):
        error = connect_error(host, port)
        if error is None:
            return Choice(f"{host}:{port}", i)
        errors.append(f"no master at {host}:{port}: {error}")
    raise StorageUnavailable(f"storage backend 'mooncake': {'; '.join(errors)}")


def registry_addresses(uri: str) -> list[Address]:
    """The endpoints in `etcd://…` or `redis://…`; none for a scheme that names no hosts."""
    scheme, _, rest = uri.partition("://")
    if scheme == "k8s":
        return []
    return [_parse_address("master_server_address", part) for part in rest.split(";")]


def connect_error(host: str, port: int) -> OSError | None:
    """Why nothing can be reached there; None where something listens."""
    try:
        socket.create_connection((host.strip("[]"), port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return error
    return None


def _parse_address(field: str, text: str) -> Address:
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"storage backend 'mooncake': {field}: {text!r} must be host:port with a port within "
            "1 .. 65535"
        )
    return host, int(port)

"""Loopback ports for the parts, and whether the API's port is free."""

from __future__ import annotations

import socket

from kvloop.shared_cache.errors import ConfigError


def check_port_is_free(host: str, port: int) -> None:
    """Raise ConfigError naming --host or --port if the API cannot listen there."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--host {host} is no address of this machine: {error}") from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port left by a closed connection is free to listen on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise ConfigError(
                f"--port {port} cannot be used on {host}: {error.strerror}; stop what listens "
                "there, or name another port"
            ) from error


def free_ports(num: int, host: str = "127.0.0.1") -> list[int]:
    """Distinct ports that nothing listens on now."""
    probes = [socket.socket() for _ in range(num)]
    try:
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()

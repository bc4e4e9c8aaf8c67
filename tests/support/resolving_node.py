"""Runs `kvloop …` with names that a file gives addresses to: HOST ADDRESS…, a line each."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

from kvloop.cli.main import main

_real = socket.getaddrinfo


def _addresses(host: Any) -> list[str] | None:
    for line in Path(os.environ["TEST_HOSTS_FILE"]).read_text().splitlines():
        name, *addresses = line.split()
        if name == host:
            return addresses
    return None


def _getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    addresses = _addresses(host)
    if addresses is None:
        return _real(host, *args, **kwargs)
    if not addresses:
        raise socket.gaierror(f"{host} has no address")
    return [info for address in addresses for info in _real(address, *args, **kwargs)]


if __name__ == "__main__":
    socket.getaddrinfo = _getaddrinfo
    sys.exit(main())

"""One-sided writes between nodes' KV pools, over Mooncake's transfer engine."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from kvloop.shared_cache.errors import ConfigError, TransferError

os.environ.setdefault("GLOG_minloglevel", "2")
os.environ.setdefault("MC_LOG_LEVEL", "ERROR")
os.environ.setdefault("MC_TRANSFER_TIMEOUT", "30")  # seconds

LIBRARIES = "libibverbs1 librdmacm1 libnuma1 libcurl4"


class Block(NamedTuple):
    """`length` bytes from local address `source` to the peer's address `target`."""

    source: int
    target: int
    length: int


class Transfer:
    """This process's transfer engine; peers reach it at `session`. Thread-safe."""

    def __init__(self, host: str, protocol: str, device: str = "") -> None:
        try:
            from mooncake.engine import TransferEngine
        except ImportError as error:
            raise ConfigError(
                f"Mooncake's transfer engine cannot be loaded ({error}); "
                f"on Debian: apt-get install {LIBRARIES}"
            ) from error
        wrong = ConfigError(
            f"--transfer-host {host} with --transfer-protocol {protocol} cannot be used: "
            "it must be an address of this machine, and rdma needs an RDMA device"
        )
        if not _is_local(host):
            raise wrong
        self._engine = TransferEngine()
        if self._engine.initialize(host, "P2PHANDSHAKE", protocol, device) != 0:
            raise wrong
        self.session = f"{host}:{self._engine.get_rpc_port()}"

    def register(self, address: int, num_bytes: int) -> None:
        """Let peers write [address, address + num_bytes); raises ConfigError when refused."""
        if self._engine.register_memory(address, num_bytes) != 0:
            raise ConfigError(f"cannot register {num_bytes} bytes for KV transfer (locked memory?)")

    def write(self, session: str, blocks: Sequence[Block]) -> None:
        """Write all blocks into a peer's memory, and return when the peer has them.

        Raises TransferError when not all are there; some may then still be under way.
        """
        sources, targets, lengths = zip(*blocks, strict=True)
        status = self._engine.batch_transfer_sync_write(
            session, list(sources), list(targets), list(lengths)
        )
        if status != 0:
            raise TransferError(f"writing {sum(lengths)} bytes to {session} failed ({status})")


def _is_local(host: str) -> bool:
    """Mooncake takes any address and then waits for ever for peers to reach it."""
    try:
        family = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, 0), family=family).close()
    except OSError:
        return False
    return True


def merge(blocks: Sequence[Block]) -> list[Block]:
    """Join blocks that follow one another on both sides: one descriptor costs 0.1 ms over TCP."""
    merged: list[Block] = []
    for block in blocks:
        last = merged[-1] if merged else None
        if (
            last
            and last.source + last.length == block.source
            and last.target + last.length == block.target
        ):
            merged[-1] = Block(last.source, last.target, last.length + block.length)
        else:
            merged.append(block)
    return merged

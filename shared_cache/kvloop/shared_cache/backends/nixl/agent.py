"""One NIXL agent with one plugin and the host pool registered: starts transfers and waits for them.

A transfer that runs cannot be recalled. With the UCX plugin over TCP a read of a stopped peer was
released, and in another run the peer's connection was removed: either way the late bytes were
written into local memory once the peer went on. So a call never returns before its transfer has
ended: the slots would be freed under it. The guard in front has the deadline; here a transfer that
takes longer than `overdue_s` is counted.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from kvloop.shared_cache.backends.nixl.library import load_nixl, new_agent
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable

Operation = Literal["READ", "WRITE"]
MemoryKind = Literal["DRAM", "FILE", "OBJ"]
_FIRST_PAUSE_S = 20e-6
_LONGEST_PAUSE_S = 1e-3


class Place(NamedTuple):
    """Where one object lies: in this process, or in what the plugin reaches."""

    address: int
    """Or offset."""
    num_bytes: int
    device: int = 0
    """File descriptor or object number; 0 for memory."""


class TransferFailed(Exception):
    """A batch failed, in part or whole; it cannot be told which."""


class PoolAgent:
    """Thread-safe; `close` when no transfer runs."""

    def __init__(
        self, plugin: str, params: Mapping[str, str], pool: HostPool, overdue_s: float
    ) -> None:
        """Raise StorageUnavailable where the plugin does not start or register the pool."""
        self.name = f"kvloop-{os.getpid()}-{secrets.token_hex(6)}"
        self.num_overdue = 0
        self._plugin = plugin
        self._overdue_s = overdue_s
        self._agent = new_agent(load_nixl(), self.name)
        try:
            self._agent.create_backend(plugin, dict(params))
            whole = [(pool.base_address, pool.num_bytes, 0, "")]
            self._memory = self._agent.register_memory(whole, "DRAM", [plugin])
        except Exception as error:
            raise StorageUnavailable(
                f"storage backend 'nixl': plugin {plugin} does not start over {pool.num_bytes} "
                f"bytes of host memory: {error}"
            ) from error

    def close(self) -> None:
        """Deregister the pool and end the agent."""
        self._agent.deregister_memory(self._memory, [self._plugin])
        self._memory = self._agent = None

    def register(self, places: Sequence[Place], names: Sequence[str], kind: MemoryKind) -> Any:
        """Make files or objects known; give the result to `deregister`."""
        rows = [(*place, name) for place, name in zip(places, names, strict=True)]
        return self._agent.register_memory(rows, kind, [self._plugin])

    def deregister(self, registered: Any) -> None:
        """Forget what `register` made known."""
        self._agent.deregister_memory(registered, [self._plugin])

    def query(self, names: Sequence[str], kind: MemoryKind) -> list[bool]:
        """Which of these files or objects are there; raises TransferFailed where it fails."""
        rows = [(0, 0, 0, name) for name in names]
        try:
            found = self._agent.query_memory(rows, self._plugin, kind)
        except Exception as error:
            raise TransferFailed(f"query: {error}") from error
        return [entry is not None for entry in found]

    def add_peer(self, metadata: bytes) -> str:
        """The name of another agent, to which transfers may go from now on."""
        name = self._agent.add_remote_agent(metadata)
        return name.decode() if isinstance(name, bytes) else str(name)

    def remove_peer(self, name: str) -> None:
        """Disconnect."""
        self._agent.remove_remote_agent(name)

    def transfer(
        self,
        operation: Operation,
        local: Sequence[Place],
        remote: Sequence[Place],
        kind: MemoryKind,
        peer: str | None = None,
    ) -> None:
        """Move a batch in one request; returns once it has ended. Raises TransferFailed."""
        try:
            handle = self._agent.initialize_xfer(
                operation,
                self._agent.get_xfer_descs(_rows(local), "DRAM"),
                self._agent.get_xfer_descs(_rows(remote), kind),
                peer or self.name,
                b"",
                [self._plugin],
            )
        except Exception as error:
            raise TransferFailed(f"{operation}: {error}") from error
        try:
            self._finish(operation, handle)
        finally:
            self._agent.release_xfer_handle(handle)

    def _finish(self, operation: Operation, handle: Any) -> None:
        overdue_at = time.monotonic() + self._overdue_s
        pause = _FIRST_PAUSE_S
        try:
            state = self._agent.transfer(handle)
            while state == "PROC":
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                state = self._agent.check_xfer_state(handle)
                if time.monotonic() > overdue_at:
                    self.num_overdue += 1
                    overdue_at = float("inf")
        except Exception as error:
            raise TransferFailed(f"{operation}: {error}") from error
        if state != "DONE":
            raise TransferFailed(f"{operation} ended in state {state}")


def _rows(places: Sequence[Place]) -> Any:
    return np.array(places, dtype=np.uint64)

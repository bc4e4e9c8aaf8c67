"""The memory that a memory server gives: mapped, registered with UCX, and described to clients."""

from __future__ import annotations

import ctypes
import mmap
import os
import secrets
from collections.abc import Mapping

from kvloop.shared_cache.backends.nixl.library import check_plugin, load_nixl, new_agent
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.memory_limit import available_memory
from kvloop.shared_cache.storage_errors import StorageUnavailable

_PLUGIN = "UCX"


class Segment:
    """Open until `close`; NIXL's own thread serves the clients' reads and writes."""

    def __init__(self, num_bytes: int, params: Mapping[str, str]) -> None:
        """Raise ConfigError where memory or plugin are not there, StorageUnavailable where UCX
        does not start."""
        room = available_memory()
        if room is not None and num_bytes > room:
            raise ConfigError(
                f"segment_bytes: {num_bytes / 2**30:.2f} GiB were asked for but only "
                f"{room / 2**30:.2f} GiB of memory are left"
            )
        module = load_nixl()
        check_plugin(module, _PLUGIN, params)
        self.num_bytes = num_bytes
        self._memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._anchor = ctypes.c_char.from_buffer(self._memory)
        self.base_address = ctypes.addressof(self._anchor)
        name = f"kvloop-memory-{os.getpid()}-{secrets.token_hex(6)}"
        self._agent = new_agent(module, name, serves_others=True)
        try:
            self._agent.create_backend(_PLUGIN, dict(params))
            rows = [(self.base_address, num_bytes, 0, "")]
            self._registered = self._agent.register_memory(rows, "DRAM", [_PLUGIN])
            self.metadata: bytes = self._agent.get_agent_metadata()
        except Exception as error:
            raise StorageUnavailable(
                f"UCX does not start over {num_bytes} bytes of memory: {error}"
            ) from error

    def close(self) -> None:
        """Deregister and give the memory back; clients' transfers fail from now on."""
        self._agent.deregister_memory(self._registered, [_PLUGIN])
        del self._agent, self._registered, self._anchor
        self._memory.close()

"""SGLang's batch v1 methods, over files: bytes move between them and the registered pool."""

from __future__ import annotations

import ctypes
import os
import secrets
from pathlib import Path
from typing import Any


class IndexedFiles:
    """Without get, set and exists: so it keeps no records."""

    def __init__(self, storage_config: Any, kwargs: dict[str, Any]) -> None:
        self._root = Path(storage_config.extra_config["directory"])
        self._root.mkdir(parents=True, exist_ok=True)
        self.is_registered = False

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        self.mem_pool_host = mem_pool_host

    def on_host_pools_registered(self) -> None:
        self.is_registered = True

    def batch_exists(self, keys: list[str], extra_info: Any = None) -> int:
        found = [self._path(key).exists() for key in keys]
        return found.index(False) if False in found else len(found)

    def batch_get_v1(
        self, keys: list[str], host_indices: Any, extra_info: Any = None
    ) -> list[bool]:
        return self._each(self._read, keys, host_indices)

    def batch_set_v1(
        self, keys: list[str], host_indices: Any, extra_info: Any = None
    ) -> list[bool]:
        return self._each(self._write, keys, host_indices)

    def _each(self, move: Any, keys: list[str], host_indices: Any) -> list[bool]:
        assert self.is_registered and len(host_indices) == len(keys) * self.mem_pool_host.page_size
        addresses, sizes = self.mem_pool_host.get_page_buffer_meta(host_indices)
        buffers = [
            memoryview((ctypes.c_char * size).from_address(address)).cast("B")
            for address, size in zip(addresses, sizes, strict=True)
        ]
        return [move(self._path(key), buffer) for key, buffer in zip(keys, buffers, strict=True)]

    def _read(self, path: Path, buffer: memoryview) -> bool:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return False
        if len(data) != len(buffer):
            return False
        buffer[:] = data
        return True

    def _write(self, path: Path, buffer: memoryview) -> bool:
        half = self._root / f".{secrets.token_hex(8)}"
        half.write_bytes(buffer)
        os.replace(half, path)
        return True

    def _path(self, key: str) -> Path:
        return self._root / key

"""A storage backend for `dynamic`: files, and a gate before them that makes every call hang."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvloop.shared_cache.file import FileBackend, FileConfig
from kvloop.shared_cache.host_pool import HostPool

STALL_S = 5.0


class StallingFiles(FileBackend):
    """While the file `gate` is there each call waits until it is gone, at most five seconds."""

    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        self._gate = Path(config["gate"])
        super().__init__(FileConfig(root=config["root"]), pool, namespace)

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        self._wait()
        return super().exists(keys)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self._wait()
        return super().get(keys, slots)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self._wait()
        return super().set(keys, slots)

    def get_small(self, name: str) -> bytes | None:
        self._wait()
        return super().get_small(name)

    def put_small(self, name: str, value: bytes) -> bool:
        self._wait()
        return super().put_small(name, value)

    def _wait(self) -> None:
        until = time.monotonic() + STALL_S
        while self._gate.exists() and time.monotonic() < until:
            time.sleep(0.02)


def flags_for(root: Path, gate: Path) -> tuple[str, ...]:
    """Of a node that is to use it; this module's folder must be on PYTHONPATH."""
    extra = {
        "backend_name": "stalling",
        "module_path": "stalling_store",
        "class_name": "StallingFiles",
        "root": str(root),
        "gate": str(gate),
    }
    return (
        *("--hicache-storage-backend", "dynamic"),
        *("--hicache-storage-backend-extra-config", json.dumps(extra)),
        *("--hicache-dynamic-modules", "stalling_store"),
    )

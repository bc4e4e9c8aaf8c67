"""A file backend with a hand on it: calls stall, writes dawdle, page calls are written down.

A node loads it as `dynamic`; what it does is steered by files under its root.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvloop.shared_cache.backends.directory.draft import Draft
from kvloop.shared_cache.backends.directory.root import OpenRoot
from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig
from kvloop.shared_cache.host_pool import HostPool

MODULE = "stalling_backend"
STALL_S = 5.0
_PAGE_CALLS = ("exists", "get", "set")


class StallingBackend(FileBackend):
    """`root` is the file backend's; `write_pause_s` passes before each page becomes visible.

    A call stalls for `stall_s` at most.
    """

    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        self._hand = Hand(Path(config["root"]), float(config.get("stall_s", STALL_S)))
        pause_s = float(config.get("write_pause_s", 0.0))
        self._hand.stall("open")
        super().__init__(FileConfig(root=config["root"]), pool, namespace)
        publish = self._drafts.publish

        def slowly(root: OpenRoot, draft: Draft, num_bytes: int) -> bool:
            time.sleep(pause_s)
            return publish(root, draft, num_bytes)

        self._drafts.publish = slowly  # type: ignore[method-assign]

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        self._hand.stall("exists")
        return super().exists(keys)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self._hand.stall("get")
        return super().get(keys, slots)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self._hand.stall("set")
        return super().set(keys, slots)


class Hand:
    """The test's end and the backend's, in different processes."""

    def __init__(self, root: Path, stall_s: float = STALL_S) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._stall_s = stall_s
        self._stalled, self._calls = root / "stalled", root / "calls"

    def hold(self, *calls: str) -> None:
        """Let these calls stall, each for `stall_s` at most, five seconds where none was given."""
        aside = self._stalled.with_suffix(".new")
        aside.write_text(json.dumps(calls))
        aside.rename(self._stalled)

    def release(self) -> None:
        self._stalled.unlink(missing_ok=True)

    def num_calls(self) -> int:
        """Calls for pages since the start, of all nodes."""
        return len(self._calls.read_text().splitlines()) if self._calls.exists() else 0

    def stall(self, call: str) -> None:
        """The backend's side: a call begins."""
        if call in _PAGE_CALLS:
            with self._calls.open("a") as log:
                log.write(f"{call}\n")
        until = time.monotonic() + self._stall_s
        while self._holds(call) and time.monotonic() < until:
            time.sleep(0.02)

    def _holds(self, call: str) -> bool:
        try:
            return call in json.loads(self._stalled.read_text())
        except FileNotFoundError:
            return False

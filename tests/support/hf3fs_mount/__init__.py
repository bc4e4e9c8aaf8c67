"""A mount of type fuse.hf3fs that behaves as 3FS's, for tests and benchmarks; needs root."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

_DAEMON = Path(__file__).with_name("daemon.py")
_MNT_DETACH = 2


def can_mount() -> bool:
    """Whether a FUSE file system can be mounted here."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


class Hf3fsMount:
    """The same store mounted on each of `points`, as on so many nodes; see `daemon`."""

    def __init__(self, backing: Path, *points: Path, negative_timeout_s: int = 5) -> None:
        self.backing = backing
        self.points = points
        for folder in (backing, *points):
            folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, str(_DAEMON), str(negative_timeout_s), *map(str, (backing, *points))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "mounted"

    def counts(self) -> dict[str, int]:
        """Requests of the kernel since the last reset, by their names in FUSE's protocol.

        `meta_read` and `meta_write`: transactions that 3FS's metadata service would run for them.
        """
        return cast(dict[str, int], self._order("counts"))

    def reset(self) -> None:
        """Count from 0."""
        self._order("reset")

    def fail(self, op: str, number: int) -> None:
        """Answer all such requests with an errno, until `mend`."""
        self._order(f"fail {op} {number}")

    def mend(self) -> None:
        """Fail no more."""
        self._order("mend")

    def kill(self) -> None:
        """End the daemon as a crash does: calls on the mount fail with ENOTCONN."""
        self.process.kill()
        self.process.wait(10)

    def unmount(self) -> None:
        """Take the mounts away under whoever uses them."""
        libc = ctypes.CDLL(None)
        for point in self.points:
            libc.umount2(os.fsencode(point), _MNT_DETACH)

    def close(self) -> None:
        """Unmount, and end the daemon."""
        self.unmount()
        with contextlib.suppress(OSError):
            cast(Any, self.process.stdin).close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        cast(Any, self.process.stdout).close()

    def _order(self, line: str) -> Any:
        cast(Any, self.process.stdin).write(line + "\n")
        cast(Any, self.process.stdin).flush()
        return self._answer()

    def _answer(self) -> Any:
        line = cast(Any, self.process.stdout).readline()
        assert line, f"the daemon ended with {self.process.wait(10)}"
        return json.loads(line)

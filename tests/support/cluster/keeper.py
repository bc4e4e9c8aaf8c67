"""Keeps a test's own Kubernetes up, should a part of it end by a fault of its own."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from types import TracebackType

LOOK_S = 2.0
START_S = 120.0


class Keeper:
    """While entered, parts of the cluster that have died are started again by its script.

    Kubernetes 1.20 built by a newer Go crashes where reflect2 walks maps. `mended.py` keeps that
    from custom resources; for any other place there is this.
    """

    def __init__(self, script: Path, state: Path) -> None:
        self._script, self._state = script, state
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self.revived: list[str] = []
        """Names of parts that had died."""

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(START_S + 10)
        for name in self.revived:
            print(f"cluster: {name} had died and was started again")

    def _keep(self) -> None:
        while not self._stop.wait(LOOK_S):
            if dead := dead_parts(self._state / "run"):
                self.revived += dead
                subprocess.run([self._script], capture_output=True, timeout=START_S)


def dead_parts(run: Path) -> list[str]:
    """Of the processes that the script has noted, those that are no more."""
    return sorted(file.stem for file in run.glob("*.pid") if not _is_alive(file))


def _is_alive(file: Path) -> bool:
    try:
        pid = int(file.read_text())
    except (OSError, ValueError):
        return True  # being written
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

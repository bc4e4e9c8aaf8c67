"""Runs the stub server in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STUB = Path(__file__).with_name("stub_server.py")


@dataclass(frozen=True, kw_only=True)
class RunningStub:
    """One that serves."""

    url: str
    process: subprocess.Popen[str]

    def seen(self) -> dict[str, Any]:
        """`requests` (bodies, in order), `last_head`, `most_streams`, `cpu_s`."""
        with urllib.request.urlopen(f"{self.url}/requests", timeout=20) as answer:
            return json.loads(answer.read())  # type: ignore[no-any-return]


@contextmanager
def running_stub(*flags: str) -> Iterator[RunningStub]:
    """Until the end of the context; flags as `stub_server.py --help` lists them."""
    command = [sys.executable, str(_STUB), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield RunningStub(url=f"http://127.0.0.1:{port}", process=process)
    finally:
        process.kill()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()

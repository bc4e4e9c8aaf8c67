"""A Service of a cluster at a port of this machine, by kubectl port-forward."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 60.0


@contextmanager
def forwarded(kubeconfig: Path, namespace: str, what: str, port: int) -> Iterator[str]:
    """The URL of `what` (service/NAME or pod/NAME) while entered."""
    command = ["kubectl", "--kubeconfig", str(kubeconfig), "-n", namespace, "port-forward"]
    process = subprocess.Popen(
        [*command, what, f":{port}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        # It says the port once it listens, or ends with its error.
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found, line + (process.stdout.read() if process.poll() is not None else "")
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.terminate()
        process.wait(START_S)

"""The operator as a process beside a test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

SCRIPT = Path(__file__).with_name("trial_operator.py")
TRIAL = "SharedCache=cluster.trial_controller:TrialController"
LONG_S = 240.0
"""For anything that comes at last."""


@dataclass(slots=True, kw_only=True)
class OperatorProcess:
    """One that was started."""

    process: subprocess.Popen[bytes]
    file: Path

    @property
    def log(self) -> str:
        """All that it wrote."""
        return self.file.read_text()

    @property
    def port(self) -> int:
        """Of /healthz, /readyz and /metrics."""
        wait_for(lambda: "serving /healthz" in self.log, self)
        found = re.search(r"/metrics on port (\d+)", self.log)
        assert found is not None
        return int(found[1])

    def ask(self, path: str) -> tuple[int, str]:
        """HTTP status and body; 0 where nobody answers."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return int(answer.status), answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except (URLError, OSError):
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples with these labels."""
        pairs = [f'{key}="{text}"' for key, text in labels.items()]
        lines = [
            line
            for line in self.ask("/metrics")[1].splitlines()
            if re.match(rf"{name}[{{ ]", line) and all(pair in line for pair in pairs)
        ]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(LONG_S)


@contextmanager
def operating(
    folder: Path,
    kubeconfig: Path,
    *flags: str,
    name: str = "operator",
    controllers: str = TRIAL,
    kills: int = 0,
) -> Iterator[OperatorProcess]:
    """Started; killed in the end."""
    support = str(SCRIPT.parents[1])
    env = {**os.environ, "PYTHONPATH": support, "TRIAL_CONTROLLERS": controllers}
    if kills:
        env["TRIAL_KILLS"] = str(kills)
    file = folder / f"{name}.log"
    words: Sequence[str] = (
        *(sys.executable, str(SCRIPT), "--kubeconfig", str(kubeconfig)),
        *("--node-image", "localhost/none:test", "--port", "0", *flags),
    )
    with file.open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=env, cwd=folder)
    made = OperatorProcess(process=process, file=file)
    try:
        yield made
    finally:
        made.kill()


def wait_for(
    check: Callable[[], bool], *operators: OperatorProcess, within_s: float = LONG_S
) -> None:
    """Fails with the operators' logs."""
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, "\n".join(one.log[-6000:] for one in operators)
        time.sleep(0.3)

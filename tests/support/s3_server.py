"""A real S3 server (moto's) with one bucket, on a free loopback port, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from running import free_port, wait_for

BUCKET = "kvloop-pages"
ACCESS_KEY, SECRET_KEY = "AKIATESTACCESSKEY", "test-secret-of-the-bucket"


class S3Server:
    """In memory; `stop` loses all."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        try:
            wait_for("the S3 server", self._has_made_the_bucket)
        except BaseException:  # whoever asked for it has nothing to stop
            self.stop()
            raise

    def config(self) -> dict[str, object]:
        """The extra config of `nixl` for this bucket."""
        return {
            "plugin": "OBJ",
            "bucket": BUCKET,
            "endpoint_override": self.url,
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
        }

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def _has_made_the_bucket(self) -> bool:
        assert self.process.poll() is None, "the S3 server ended early"
        try:
            request = urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")
            return bool(urllib.request.urlopen(request, timeout=5).status == 200)
        except urllib.error.URLError:
            return False

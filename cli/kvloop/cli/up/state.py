"""The directory of one run: logs, the nodes' secret, pages of the file cache."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from kvloop.cli.up.config import UpConfig
from kvloop.cli.up.plan import pages_directory
from kvloop.shared_cache.errors import ConfigError


@contextlib.contextmanager
def run_directory(config: UpConfig) -> Iterator[Path]:
    """Yield where logs go; raises ConfigError where another run uses the directory.

    Pages of an earlier run are removed first, and this run's at the end.
    """
    root = config.directory
    with _locked(root):
        _remove_pages(config)
        try:
            logs = root / "logs"
            logs.mkdir(exist_ok=True)
            yield logs
        finally:
            _remove_pages(config)


def new_secret_file(root: Path) -> Path:
    """A fresh secret for the nodes of this run, readable by this user only."""
    path = root / "node-secret"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(secrets.token_hex(32))
    return path


def _remove_pages(config: UpConfig) -> None:
    shutil.rmtree(pages_directory(config), ignore_errors=True)


def _locked(root: Path) -> TextIO:
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"--state-dir {root} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ConfigError(f"--state-dir {root}: another kvloop up runs in it") from error
    return lock

"""Telling a mount of 3FS's from any other directory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_TYPE = "fuse.hf3fs"
_TYPE_FIELD = -3  # type, source and options end a line, after any number of optional fields


def require_mount(mount: Path, is_3fs: bool) -> None:
    """Raise OSError where `mount` is no directory now, or where `is_3fs`, no mount point of 3FS's.

    Where only directories of a 3FS are mounted, its `3fs-virt` is a mount of its own beside them.
    """
    if not stat.S_ISDIR(os.stat(mount).st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(mount))
    if not is_3fs:
        return
    point = os.path.realpath(mount)
    kinds = [kind for where, kind in _mounts() if where in (point, f"{point}/3fs-virt")]
    if not kinds:
        raise OSError(errno.ENODEV, "3FS is not mounted there", str(mount))
    if _TYPE not in kinds:
        raise OSError(errno.ENODEV, f"a {kinds[-1]} is mounted there, not a {_TYPE}", str(mount))


def _mounts() -> list[tuple[str, str]]:
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    fields = [line.split(" ") for line in lines]
    return [(_plain(field[4]), field[_TYPE_FIELD]) for field in fields]


def _plain(path: str) -> str:
    """The kernel writes spaces and the like as octal numbers."""
    return os.fsdecode(
        path.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")
    )

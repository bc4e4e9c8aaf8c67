"""Which file system a directory lies on."""

from __future__ import annotations

import os
import re
from pathlib import Path

_LOCAL = frozenset(
    {"bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs"}
    | {"overlay", "ramfs", "tmpfs", "vfat", "xfs", "zfs"}
)
_ESCAPE = re.compile(r"\\([0-7]{3})")


def file_system_type(directory: Path) -> str:
    """The type's name as /proc/self/mountinfo has it; empty where it cannot be told."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            return type_in(lines.read(), Path(os.path.realpath(directory)))
    except OSError:
        return ""


def is_local(file_system: str) -> bool:
    """Whether this machine alone has it, with locks and shared memory maps that work."""
    return file_system in _LOCAL


def type_in(mountinfo: str, directory: Path) -> str:
    """Of the mount that is the deepest above the directory, and the last one there."""
    best, found = -1, ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        mount_point = Path(_ESCAPE.sub(lambda code: chr(int(code[1], 8)), fields[4]))
        if directory.is_relative_to(mount_point) and len(mount_point.parts) >= best:
            best, found = len(mount_point.parts), after.split(" ")[0]
    return found

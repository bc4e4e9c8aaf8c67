"""How much memory this process may still take: the machine's and its control groups' limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """Bytes that can be taken without swapping or being killed; None where nothing says."""
    rooms = [*_meminfo(proc), *_cgroup_rooms(proc, cgroup)]
    return min(rooms, default=None)


def _meminfo(proc: Path) -> Iterator[int]:
    for line in _lines(proc / "meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _cgroup_rooms(proc: Path, root: Path) -> Iterator[int]:
    """Room under every limit on the way up: v2 has one tree, v1 one for each controller."""
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _rooms(root, path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes"
            yield from _rooms(root / "memory", path, *names)


def _rooms(root: Path, path: str, limit_file: str, usage_file: str) -> Iterator[int]:
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        limit, usage = _number(folder / limit_file), _number(folder / usage_file)
        if limit is not None and usage is not None:
            yield max(0, limit - usage + _reclaimable(folder))


def _reclaimable(folder: Path) -> int:
    """Page cache counts as usage though the kernel gives it up under pressure."""
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    for line in _lines(path):
        return int(line) if line.isdigit() else None  # v2 writes "max" for no limit
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []

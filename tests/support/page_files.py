"""What the file backend has under its root, looked at from outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kvloop.shared_cache.page_object import PageShape, check


class PageFile(NamedTuple):
    """One published object, as its name has it."""

    path: Path
    namespace: bytes
    key: bytes
    group: int

    def fault(self, shape: PageShape) -> str | None:
        """Why it must not be served."""
        data = self.path.read_bytes()
        if len(data) != shape.object_bytes:
            return f"{len(data)} bytes"
        fault = check(memoryview(data), shape, self.key, self.namespace, self.group).fault
        return fault.value if fault else None


def published(root: Path) -> Iterator[PageFile]:
    """All pages under the root."""
    for path in root.rglob("kvl1-*"):
        _, namespace, key, group = path.name.split("-")
        yield PageFile(path, bytes.fromhex(namespace), bytes.fromhex(key), int(group))


def half_written(root: Path) -> set[str]:
    """Names of files that were begun and not published; the first part is the writer's."""
    return {path.name for path in root.glob("kvl1/*/tmp/*")}


def stored_files(root: Path) -> list[Path]:
    """Page files of every namespace; records are elsewhere."""
    return [path for path in root.rglob("kvl1-*") if path.is_file()]

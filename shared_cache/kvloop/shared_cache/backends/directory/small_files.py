"""Records of a few KiB as files; the last put wins."""

from __future__ import annotations

import errno
import os

from kvloop.shared_cache.backends.directory.draft import Drafts
from kvloop.shared_cache.backends.directory.layout import Layout
from kvloop.shared_cache.backends.directory.root import OpenRoot, regular_size

_MAX_BYTES = 16 << 20  # a record is a few KiB: what is larger is none of ours


class SmallFiles:
    """Of one namespace; thread-safe. Raises the file system's OSError."""

    def __init__(self, layout: Layout, drafts: Drafts) -> None:
        self._layout = layout
        self._drafts = drafts

    def put(self, root: OpenRoot, name: str, value: bytes) -> None:
        """Write aside and rename, so that readers see the old record or the new."""
        draft = self._drafts.begin(root, self._layout.small, self._layout.small_name(name))
        try:
            done = 0
            while done < len(value):
                done += os.pwrite(draft.fd, memoryview(value)[done:], done)
            self._drafts.replace(root, draft)
        finally:
            self._drafts.end(root, draft)

    def get(self, root: OpenRoot, name: str) -> bytes | None:
        """The record, or None."""
        path = f"{self._layout.small}/{self._layout.small_name(name)}"
        try:
            fd = root.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            return _content(fd, path)
        finally:
            os.close(fd)


def _content(fd: int, path: str) -> bytes:
    size = regular_size(fd)
    if size is None or size > _MAX_BYTES:
        raise OSError(errno.EISDIR, "is no record", path)
    parts, done = [], 0
    while part := os.pread(fd, size - done + 1, done):
        parts.append(part)
        done += len(part)
    return b"".join(parts)

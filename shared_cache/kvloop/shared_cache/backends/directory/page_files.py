"""The files of single pages: looked up, opened, begun, published and removed.

Nothing here raises for one page: what keeps it from being read or written goes to `ObjectFaults`.
"""

from __future__ import annotations

import errno
import os

from kvloop.shared_cache.backends.directory.draft import Draft, Drafts
from kvloop.shared_cache.backends.directory.faults import FOREIGN, Counts, ObjectFaults
from kvloop.shared_cache.backends.directory.layout import Layout
from kvloop.shared_cache.backends.directory.root import OpenRoot, regular_size
from kvloop.shared_cache.page_object import PageShape

_READ = os.O_RDONLY | os.O_NONBLOCK  # never waits for the other end of a planted FIFO


class PageFiles:
    """Of one namespace; thread-safe. `flags` are added to those that pages are opened with."""

    def __init__(
        self, layout: Layout, shape: PageShape, drafts: Drafts, counts: Counts, flags: int
    ) -> None:
        self._layout = layout
        self._object_bytes = shape.object_bytes
        self._groups = range(shape.head_groups)
        self._drafts = drafts
        self._counts = counts
        self._flags = flags

    def has(self, root: OpenRoot, faults: ObjectFaults, key: bytes) -> bool:
        """Whether all objects of the page are there, whole."""
        try:
            is_there = all(self._has_object(root, key, group) for group in self._groups)
        except OSError as error:
            faults.add(error)
            return False
        faults.sound()
        return is_there

    def open(self, root: OpenRoot, faults: ObjectFaults, key: bytes) -> list[int]:
        """All groups' files, open; none where one is missing or of another size."""
        fds: list[int] = []
        try:
            for group in self._groups:
                fds.append(self._open(root, self._layout.path(key, group)))
                if regular_size(fds[-1]) != self._object_bytes:
                    self._counts.add("short_reads")
                    break
            else:
                return fds
            faults.sound()
        except FileNotFoundError:
            faults.sound()
        except OSError as error:
            faults.add(error)
        for fd in fds:
            os.close(fd)
        return []

    def begin(self, root: OpenRoot, faults: ObjectFaults, key: bytes) -> dict[int, Draft] | None:
        """Drafts of the groups that are missing; None where they cannot be begun."""
        drafts: dict[int, Draft] = {}
        try:
            for group in self._groups:
                if self._is_object(root, faults, key, group):
                    faults.sound()
                    continue
                name = self._layout.name(key, group)
                shard = self._layout.shard(key)
                drafts[group] = self._drafts.begin_page(root, shard, name, self._flags)
        except OSError as error:
            faults.add(error)
            for draft in drafts.values():
                self._drafts.end(root, draft)
            return None
        return drafts

    def finish(self, root: OpenRoot, faults: ObjectFaults, draft: Draft, length: int) -> bool:
        """Publish a draft that was written whole: `length` is what `PageIO.write` said of it."""
        try:
            if length < 0:
                raise OSError(-length, os.strerror(-length))
            is_repair = self._drafts.publish(root, draft, self._object_bytes)
        except OSError as error:
            faults.add(error)
            return False
        faults.sound()
        self._counts.add("writes")
        self._counts.add("repaired", is_repair)
        return True

    def is_read(self, faults: ObjectFaults, length: int) -> bool:
        """Whether an object was read whole: `length` is what `PageIO.read` said of it."""
        if length < 0:
            faults.add(OSError(-length, os.strerror(-length)))
            return False
        faults.sound()
        is_whole = length == self._object_bytes
        self._counts.add("reads" if is_whole else "short_reads")
        return is_whole

    def remove(self, root: OpenRoot, faults: ObjectFaults, key: bytes) -> bool:
        """Whether something of the page was there, and is gone."""
        try:
            shard = root.directory(self._layout.shard(key))
        except FileNotFoundError:
            faults.sound()
            return False
        except OSError as error:
            faults.add(error)
            return False
        try:
            names = [self._layout.name(key, group) for group in self._groups]
            return any([_unlink(faults, shard, name) for name in names])
        finally:
            os.close(shard)

    def _open(self, root: OpenRoot, path: str) -> int:
        try:
            return root.open(path, _READ | self._flags)
        except OSError as error:
            # A FIFO or a socket may refuse the flags; that is not the file system's fault.
            if error.errno in (errno.EINVAL, errno.ENXIO) and root.size(path) is None:
                raise OSError(errno.ELOOP, "is no regular file", path) from None
            raise

    def _is_object(self, root: OpenRoot, faults: ObjectFaults, key: bytes, group: int) -> bool:
        """A symlink in its place is counted, and is to be replaced."""
        try:
            return self._has_object(root, key, group)
        except OSError as error:
            if error.errno not in FOREIGN:
                raise
            faults.add(error)
            return False

    def _has_object(self, root: OpenRoot, key: bytes, group: int) -> bool:
        return root.size(self._layout.path(key, group)) == self._object_bytes


def _unlink(faults: ObjectFaults, folder: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        faults.sound()
        return False
    except OSError as error:
        faults.add(error)
        return False
    faults.sound()
    return True

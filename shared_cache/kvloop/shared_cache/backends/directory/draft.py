"""Files being written: out of sight until they are whole, then linked to their names."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from kvloop.shared_cache.backends.directory.faults import NO_ANONYMOUS_FILES, NO_LINKS
from kvloop.shared_cache.backends.directory.layout import Layout
from kvloop.shared_cache.backends.directory.root import OpenRoot
from kvloop.shared_cache.backends.directory.spares import Spares

_STALE_AFTER_S = 3600.0
_MODE = 0o640


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An open file without a name of its own, or with one among the drafts."""

    fd: int
    folder: str
    """The directory that it is to be published in; there from then on."""
    name: str
    """What it is to be called there."""
    tmp_name: str | None
    """Its name among the drafts; None: it has none, and is gone when it is closed."""


class Drafts:
    """Begins and publishes files of one store; thread-safe.

    Files have no name (O_TMPFILE) where the file system can, so that a crash leaves nothing;
    elsewhere they lie in `tmp` and what a crash leaves there is swept by a later writer.
    """

    def __init__(self, layout: Layout, spares: Spares | None = None) -> None:
        """`spares` are what pages are written to where there are some."""
        self._layout = layout
        self._spares = spares
        self._is_anonymous = os.path.isdir("/proc/self/fd")  # without it they cannot be linked
        self._is_swept = False
        self._incarnation = secrets.token_hex(8)
        self._numbers = itertools.count()

    def begin_page(self, root: OpenRoot, folder: str, name: str, flags: int) -> Draft:
        """Open a file for a page's object, with these flags in addition."""
        fd = self._spares.take() if self._spares is not None and self._is_anonymous else None
        if fd is not None:
            return Draft(fd=fd, folder=folder, name=name, tmp_name=None)
        return self.begin(root, folder, name, flags)

    def begin(self, root: OpenRoot, folder: str, name: str, flags: int = 0) -> Draft:
        """Open a file for writing, with these flags in addition."""
        fd = self._anonymous(root, flags) if self._is_anonymous else None
        if fd is not None:
            return Draft(fd=fd, folder=folder, name=name, tmp_name=None)
        fd, tmp_name = self._named(root, flags)
        return Draft(fd=fd, folder=folder, name=name, tmp_name=tmp_name)

    def publish(self, root: OpenRoot, draft: Draft, num_bytes: int) -> bool:
        """Give the file its name, unless another of this length has it; makes the folder.

        What is no regular file of the length is replaced. True where it was.
        """
        with _closing(root.made_directory(draft.folder)) as folder:
            try:
                self._link(root, draft, folder)
            except FileExistsError:
                if _is_file_of(num_bytes, folder, draft.name):
                    return False
                self._rename(root, draft, folder)
                return True
        return False

    def replace(self, root: OpenRoot, draft: Draft) -> None:
        """Give the file its name, in place of what has it; makes the folder."""
        with _closing(root.made_directory(draft.folder)) as folder:
            self._rename(root, draft, folder)

    def end(self, root: OpenRoot, draft: Draft) -> None:
        """Close the file, and drop it where it was not published."""
        os.close(draft.fd)
        if draft.tmp_name is not None:
            with contextlib.suppress(OSError), self._tmp(root) as tmp:
                os.unlink(draft.tmp_name, dir_fd=tmp)

    def _link(self, root: OpenRoot, draft: Draft, folder: int) -> None:
        if draft.tmp_name is None:
            os.link(f"/proc/self/fd/{draft.fd}", draft.name, dst_dir_fd=folder)
            return
        with self._tmp(root) as tmp:
            try:
                os.link(
                    draft.tmp_name,
                    draft.name,
                    src_dir_fd=tmp,
                    dst_dir_fd=folder,
                    follow_symlinks=False,
                )
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                # No hard links here: both writers' pages are equal anyway.
                os.rename(draft.tmp_name, draft.name, src_dir_fd=tmp, dst_dir_fd=folder)

    def _rename(self, root: OpenRoot, draft: Draft, folder: int) -> None:
        with self._tmp(root) as tmp:
            tmp_name = draft.tmp_name
            if tmp_name is None:
                tmp_name = self._new_name()
                os.link(f"/proc/self/fd/{draft.fd}", tmp_name, dst_dir_fd=tmp)
            try:
                os.rename(tmp_name, draft.name, src_dir_fd=tmp, dst_dir_fd=folder)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(tmp_name, dir_fd=tmp)
                raise

    def _tmp(self, root: OpenRoot) -> contextlib.AbstractContextManager[int]:
        return _closing(root.made_directory(self._layout.tmp))

    def _anonymous(self, root: OpenRoot, flags: int) -> int | None:
        """All in one directory: file systems then find room for them side by side."""
        flags |= os.O_TMPFILE | os.O_WRONLY
        try:
            try:
                return root.open(self._layout.home, flags, _MODE)
            except FileNotFoundError:
                os.close(root.made_directory(self._layout.home))
                return root.open(self._layout.home, flags, _MODE)
        except OSError as error:
            if error.errno not in NO_ANONYMOUS_FILES:
                raise
            self._is_anonymous = False
            return None

    def _named(self, root: OpenRoot, flags: int) -> tuple[int, str]:
        name = self._new_name()
        flags |= os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._tmp(root) as tmp:
            if not self._is_swept:
                self._is_swept = True
                sweep(tmp)
            return os.open(name, flags, _MODE, dir_fd=tmp), name

    def _new_name(self) -> str:
        return f"{self._incarnation}-{next(self._numbers)}"


def sweep(folder: int) -> None:
    """Remove what crashed writers left; a living writer's file is younger than that."""
    # An O_PATH descriptor cannot be listed.
    listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        for name in os.listdir(listed):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                status = os.stat(name, dir_fd=listed, follow_symlinks=False)
                if time.time() - status.st_mtime > _STALE_AFTER_S:
                    os.unlink(name, dir_fd=listed)
    finally:
        os.close(listed)


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _is_file_of(num_bytes: int, folder: int, name: str) -> bool:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and status.st_size == num_bytes

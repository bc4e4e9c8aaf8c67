"""Pages as files under one root: a local disk, NFS, or any POSIX file system that nodes share.

    <root>/kvl1/<namespace>/<key[:2]>/<key[2:4]>/<object name>
    <root>/kvl1/<namespace>/small/<sha256 of the record's name>
    <root>/kvl1/<namespace>/tmp/<being written>

Files are written aside and linked to their names, so a half-written page is never visible and the
first writer wins. A crash leaves only files in tmp/, which a later start sweeps. Nothing is synced:
after a power cut a damaged file fails its size or its trailer's check and is a miss.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import object_name
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.workers import Workers

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_STALE_AFTER_S = 3600.0


class FileConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The extra config of `file`."""

    root: Annotated[str, msgspec.Meta(min_length=1)]
    """Directory; made where it is missing."""
    num_threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """Files read or written at once."""


class FileBackend(StorageBackend):
    """See the module."""

    def __init__(self, config: FileConfig, pool: HostPool, namespace: bytes) -> None:
        """Raise StorageUnavailable where the root cannot be made or written."""
        self._pool = pool
        self._namespace = namespace
        self._home = Path(config.root).absolute() / "kvl1" / namespace.hex()
        self._tmp = self._home / "tmp"
        self._small = self._home / "small"
        self._incarnation = secrets.token_hex(8)
        self._num_tmp = itertools.count()
        self._lock = threading.Lock()
        self._stats = dict.fromkeys(("reads", "writes", "no_room", "short_reads", "repaired"), 0.0)
        with _faults_of_the_store():
            for folder in (self._tmp, self._small):
                folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
        self._threads = Workers(config.num_threads, "l3-file")

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        return self._each(self._has, keys)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return self._each(self._read_page, keys, slots)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return self._each(self._write_page, keys, slots)

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        return self._each(self._remove_page, keys)

    def put_small(self, name: str, value: bytes) -> bool:
        with _faults_of_the_store():
            return self._write(self._small_path(name), memoryview(value), os.replace)

    def get_small(self, name: str) -> bytes | None:
        with _faults_of_the_store():
            try:
                return self._small_path(name).read_bytes()
            except FileNotFoundError:
                return None

    def stats(self) -> dict[str, float]:
        with self._lock:
            return dict(self._stats)

    def clear(self) -> None:
        with _faults_of_the_store():
            for folder, _, names in os.walk(self._home):
                if folder != str(self._tmp):
                    for name in names:
                        _unlink(Path(folder, name))

    def close(self) -> None:
        self._threads.stop()

    def _each(self, work: Callable[..., bool], *batch: Sequence[object]) -> list[bool]:
        with _faults_of_the_store():
            return self._threads.map(work, *batch)

    def _has(self, key: bytes) -> bool:
        return all(self._has_object(path) for path in self._paths(key))

    def _has_object(self, path: Path) -> bool:
        try:
            return path.stat().st_size == self._pool.shape.object_bytes
        except FileNotFoundError:
            return False

    def _read_page(self, key: bytes, slot: int) -> bool:
        paths = enumerate(self._paths(key))
        return all(self._read(path, self._pool.group_view(slot, group)) for group, path in paths)

    def _write_page(self, key: bytes, slot: int) -> bool:
        paths = enumerate(self._paths(key))
        return all(self._put(path, self._pool.group_view(slot, group)) for group, path in paths)

    def _remove_page(self, key: bytes) -> bool:
        return any([_unlink(path) for path in self._paths(key)])

    def _paths(self, key: bytes) -> list[Path]:
        name = key.hex()
        shard = self._home / name[:2] / name[2:4]
        groups = range(self._pool.shape.head_groups)
        return [shard / object_name(self._namespace, key, group) for group in groups]

    def _small_path(self, name: str) -> Path:
        return self._small / hashlib.sha256(name.encode()).hexdigest()

    def _read(self, path: Path, view: memoryview) -> bool:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            is_whole = os.fstat(fd).st_size == view.nbytes and _fill(fd, view)
        finally:
            os.close(fd)
        self._count("reads" if is_whole else "short_reads")
        return is_whole

    def _put(self, path: Path, view: memoryview) -> bool:
        if self._has_object(path):
            return True
        return self._write(path, view, self._publish)

    def _write(self, path: Path, view: memoryview, publish: Callable[[Path, Path], None]) -> bool:
        tmp = self._tmp / f"{self._incarnation}-{next(self._num_tmp)}"
        try:
            _write_file(tmp, view)
            publish(tmp, path)
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._count("no_room")
                return False
            raise
        finally:
            _unlink(tmp)
        self._count("writes")
        return True

    def _publish(self, tmp: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)  # tmp was written, so the root is there
        try:
            os.link(tmp, path)
        except FileExistsError:
            if not self._has_object(path):
                self._count("repaired")
                os.replace(tmp, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.replace(tmp, path)  # no hard links here: both writers' pages are equal anyway

    def _sweep(self) -> None:
        """Remove what crashed writers left; a living writer's file is younger than that."""
        for path in self._tmp.iterdir():
            try:
                is_stale = time.time() - path.stat().st_mtime > _STALE_AFTER_S
            except FileNotFoundError:
                continue
            if is_stale:
                _unlink(path)

    def _count(self, name: str) -> None:
        with self._lock:
            self._stats[name] += 1


class _faults_of_the_store:
    """Turns the file system's errors into the store's."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StorageUnavailable(f"storage backend 'file': {error}") from error


def _fill(fd: int, view: memoryview) -> bool:
    done = 0
    while done < view.nbytes:
        num_read = os.preadv(fd, [view[done:]], done)
        if num_read == 0:
            return False
        done += num_read
    return True


def _write_file(path: Path, view: memoryview) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        done = 0
        while done < view.nbytes:
            done += os.pwritev(fd, [view[done:]], done)
    finally:
        os.close(fd)


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True

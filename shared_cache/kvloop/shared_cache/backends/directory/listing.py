"""Walking a store: all namespaces' objects, or one namespace's files to be removed."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from kvloop.shared_cache.backend import StoredObject
from kvloop.shared_cache.backends.directory.faults import ObjectFaults
from kvloop.shared_cache.backends.directory.layout import SHARD_BYTES, SMALL, TOP
from kvloop.shared_cache.backends.directory.root import OpenRoot
from kvloop.shared_cache.page_object import parse_object_name

_NAMESPACE = re.compile("[0-9a-f]{64}")
_SHARD = re.compile("[0-9a-f]")
_LISTED = os.O_RDONLY | os.O_DIRECTORY


class _File(NamedTuple):
    name: str
    num_bytes: int
    used_at: float
    """The later of last read and last write, as far as the file system keeps the first."""


def list_objects(root: OpenRoot, faults: ObjectFaults) -> Iterator[StoredObject]:
    """All pages' objects and records; what is none of these is left out."""
    for home in namespaces(root, faults):
        namespace = bytes.fromhex(home.rpartition("/")[2])
        for shard in shards(root, faults, home):
            yield from shard_objects(root, faults, shard, namespace)
        for file in _files(root, faults, f"{home}/{SMALL}"):
            yield StoredObject(namespace, None, 0, file.num_bytes, file.used_at)


def namespaces(root: OpenRoot, faults: ObjectFaults) -> Iterator[str]:
    """The directory of each namespace."""
    yield from _folders(root, faults, TOP, _NAMESPACE)


def shards(root: OpenRoot, faults: ObjectFaults, home: str) -> Iterator[str]:
    """The directories that hold a namespace's pages."""
    for first in _folders(root, faults, home, _SHARD):
        yield from _folders(root, faults, first, _SHARD)


def shard_objects(
    root: OpenRoot, faults: ObjectFaults, shard: str, namespace: bytes
) -> Iterator[StoredObject]:
    """The objects of one shard that lie where they belong."""
    place = "".join(shard.split("/")[-2:])
    for file in _files(root, faults, shard):
        name = parse_object_name(file.name)
        if name and name.namespace == namespace and name.key[:SHARD_BYTES].hex() == place:
            yield StoredObject(namespace, name.key, name.group, file.num_bytes, file.used_at)


def remove_files(root: OpenRoot, faults: ObjectFaults, home: str) -> None:
    """Remove all pages and records of a namespace, whole or not; drafts stay their writers'."""
    for folder in (*shards(root, faults, home), f"{home}/{SMALL}"):
        with _listed(root, faults, folder) as fd:
            for name in os.listdir(fd) if fd is not None else ():
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    os.unlink(name, dir_fd=fd)


def _folders(
    root: OpenRoot, faults: ObjectFaults, path: str, names: re.Pattern[str]
) -> Iterator[str]:
    with _listed(root, faults, path) as fd:
        found = sorted(os.listdir(fd)) if fd is not None else []
    yield from (f"{path}/{name}" for name in found if names.fullmatch(name))


def _files(root: OpenRoot, faults: ObjectFaults, path: str) -> Iterator[_File]:
    with _listed(root, faults, path) as fd:
        for name in os.listdir(fd) if fd is not None else ():
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    used_at = max(status.st_atime, status.st_mtime)
                    yield _File(name, status.st_size, used_at)


@contextlib.contextmanager
def _listed(root: OpenRoot, faults: ObjectFaults, path: str) -> Iterator[int | None]:
    """An open directory; None where there is none, or something else."""
    fd: int | None = None
    try:
        fd = root.open(path, _LISTED)
        faults.sound()
    except FileNotFoundError:
        faults.sound()
    except OSError as error:
        faults.add(error)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)

"""The store of page files, whatever moves their bytes: see `layout` for where they lie.

Files are written out of sight and linked to their names, so a half-written page is never visible
and the first writer wins. Nothing is synced: after a power cut a damaged file fails its size or
its trailer's check and is a miss. Symlinks under the root are refused, never followed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.backends.directory.draft import Drafts
from kvloop.shared_cache.backends.directory.faults import Counts, ObjectFaults
from kvloop.shared_cache.backends.directory.layout import Layout
from kvloop.shared_cache.backends.directory.listing import list_objects, remove_files
from kvloop.shared_cache.backends.directory.page_files import PageFiles
from kvloop.shared_cache.backends.directory.page_io import PageIO, Transfer
from kvloop.shared_cache.backends.directory.root import OpenRoot, StoreRoot
from kvloop.shared_cache.backends.directory.small_files import SmallFiles
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.workers import Workers

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectorySettings:
    """Where a store lies and how much of it there may be."""

    root: Path
    """Directory; made where it is missing."""
    mount_point: Path | None = None
    """Where set, the store is unavailable while nothing is mounted there."""
    capacity_bytes: int | None = None
    """Of all pages under the root together; None: no bound."""
    num_threads: int = 1
    """Threads that open, look up and publish files; 1: the caller's own."""
    files_at_once: int = 64
    """Open at the same time for one call: bounds descriptors, and what `PageIO` gets at once."""


class DirectoryStore(StorageBackend):
    """See the module; `io` moves pages of `pool`, and is closed with the store."""

    def __init__(
        self,
        settings: DirectorySettings,
        pool: HostPool,
        namespace: bytes,
        io: PageIO,
        *,
        name: str,
    ) -> None:
        """Raise StorageUnavailable where the root cannot be had; makes nothing beneath it."""
        self._name = name
        self._io = io
        self._layout = Layout(namespace)
        self._drafts = Drafts(self._layout.tmp)
        self._pages_at_once = max(1, settings.files_at_once // pool.shape.head_groups)
        self._counts = Counts(
            *("reads", "writes", "no_room", "read_only"),
            *("short_reads", "repaired", "refused", "io_errors"),
        )
        with self._store_faults():
            self._root = StoreRoot(settings.root, settings.mount_point)
        flags = os.O_DIRECT if io.is_direct else 0
        self._files = PageFiles(self._layout, pool.shape, self._drafts, self._counts, flags)
        self._small = SmallFiles(self._layout, self._drafts)
        self._threads: Workers | None = None
        if settings.num_threads > 1:
            self._threads = Workers(settings.num_threads, f"l3-{name}")

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        with self._call() as (root, faults):
            return self._each(partial(self._files.has, root, faults), keys)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        with self._call() as (root, faults):
            found: list[bool] = []
            for batch in self._rounds(keys):
                found += self._read_round(root, faults, keys[batch], slots[batch])
            return found

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        with self._call() as (root, faults):
            stored: list[bool] = []
            for batch in self._rounds(keys):
                stored += self._write_round(root, faults, keys[batch], slots[batch])
            return stored

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        with self._call() as (root, faults):
            return self._each(partial(self._files.remove, root, faults), keys)

    def put_small(self, name: str, value: bytes) -> bool:
        with self._call() as (root, faults):
            try:
                self._small.put(root, name, value)
            except OSError as error:
                faults.add(error)
                return False
            return True

    def get_small(self, name: str) -> bytes | None:
        with self._call() as (root, faults):
            try:
                return self._small.get(root, name)
            except OSError as error:
                faults.add(error)
                return None

    def stats(self) -> dict[str, float]:
        return self._counts.snapshot()

    def clear(self) -> None:
        with self._call() as (root, faults):
            remove_files(root, faults, self._layout.home)

    def objects(self) -> Iterator[StoredObject]:
        with self._call() as (root, faults):
            yield from list_objects(root, faults)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.stop()
        self._io.close()

    # --- one round of files ---------------------------------------------------------------------

    def _read_round(
        self, root: OpenRoot, faults: ObjectFaults, keys: Sequence[bytes], slots: Sequence[int]
    ) -> list[bool]:
        pages = self._each(partial(self._files.open, root, faults), keys)
        transfers = [
            Transfer(fd, slot, group)
            for fds, slot in zip(pages, slots, strict=True)
            for group, fd in enumerate(fds)
        ]
        try:
            lengths = self._io.read(transfers) if transfers else []
        finally:
            for transfer in transfers:
                self._io.forget(transfer.fd)
                os.close(transfer.fd)
        are_read = [self._files.is_read(faults, length) for length in lengths]
        return [
            bool(fds) and part for fds, part in zip(pages, _all_of(pages, are_read), strict=True)
        ]

    def _write_round(
        self, root: OpenRoot, faults: ObjectFaults, keys: Sequence[bytes], slots: Sequence[int]
    ) -> list[bool]:
        pages = self._each(partial(self._files.begin, root, faults), keys)
        drafts = [draft for begun in pages for draft in (begun or {}).values()]
        transfers = [
            Transfer(draft.fd, slot, group)
            for begun, slot in zip(pages, slots, strict=True)
            for group, draft in (begun or {}).items()
        ]
        try:
            lengths = self._io.write(transfers) if transfers else []
            are_stored = self._each(partial(self._files.finish, root, faults), drafts, lengths)
        finally:
            for draft in drafts:
                self._io.forget(draft.fd)
                self._drafts.end(root, draft)
        whole = _all_of([begun or () for begun in pages], are_stored)
        return [begun is not None and part for begun, part in zip(pages, whole, strict=True)]

    # --- around a call --------------------------------------------------------------------------

    @contextlib.contextmanager
    def _call(self) -> Iterator[tuple[OpenRoot, ObjectFaults]]:
        faults = ObjectFaults(self._counts)
        with self._store_faults():
            with self._root.open() as root:
                yield root, faults
            faults.raise_if_all_failed()

    @contextlib.contextmanager
    def _store_faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageUnavailable(f"storage backend {self._name!r}: {error}") from error

    def _each(self, work: Callable[..., Result], *batch: Sequence[Any]) -> list[Result]:
        if self._threads is None:
            return list(map(work, *batch))
        return self._threads.map(work, *batch)

    def _rounds(self, keys: Sequence[bytes]) -> Iterator[slice]:
        for start in range(0, len(keys), self._pages_at_once):
            yield slice(start, start + self._pages_at_once)


def _all_of(parts: Sequence[Collection[object]], results: Sequence[bool]) -> list[bool]:
    """Whether all results are True, for each run of results that belongs to one page."""
    rest = iter(results)
    return [all([next(rest) for _ in part]) for part in parts]

"""The store of page files, whatever moves their bytes: see `layout` for where they lie.

Files are written out of sight and linked to their names, so a half-written page is never visible
and the first writer wins. Nothing is synced: after a power cut a damaged file fails its size or
its trailer's check and is a miss. Symlinks under the root are refused, never followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.backends.directory.account import ObjectId
from kvloop.shared_cache.backends.directory.accounts import account_of
from kvloop.shared_cache.backends.directory.draft import Draft, Drafts
from kvloop.shared_cache.backends.directory.faults import NO_ROOM, Counts, ObjectFaults
from kvloop.shared_cache.backends.directory.layout import Layout
from kvloop.shared_cache.backends.directory.listing import list_objects, remove_files
from kvloop.shared_cache.backends.directory.page_files import PageFiles
from kvloop.shared_cache.backends.directory.page_io import PageIO, Transfer
from kvloop.shared_cache.backends.directory.root import OpenRoot, StoreRoot
from kvloop.shared_cache.backends.directory.small_files import SmallFiles
from kvloop.shared_cache.backends.directory.spares import Spares
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.workers import Workers

Result = TypeVar("Result")
_Round = Callable[[Sequence[bytes], Sequence[int]], list[bool]]
_LISTED_AT_ONCE = 256


class _Part(NamedTuple):
    """One object being written."""

    page: int
    """Place in the batch."""
    slot: int
    id: ObjectId
    draft: Draft


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
    """Open at the same time for one call."""
    rounds_at_once: int = 1
    """Parts that a call's files are moved in: while the bytes of one move, files of another are
    opened or published. `PageIO` gets so much less at once."""
    num_spares: int = 0
    """Files made ahead of writers at most; only where files without names can be allocated."""


def open_root(settings: DirectorySettings, name: str) -> StoreRoot:
    """The root of a backend of this name; raises StorageUnavailable where it cannot be had."""
    with store_faults(name):
        return StoreRoot(settings.root, settings.mount_point)


@contextlib.contextmanager
def store_faults(name: str) -> Iterator[None]:
    """The file system's errors are the store's."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(f"storage backend {name!r}: {error}") from error


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
        self._object_bytes = pool.shape.object_bytes
        self._groups = range(pool.shape.head_groups)
        self._layout = Layout(namespace)
        files_a_round = settings.files_at_once // settings.rounds_at_once
        self._pages_a_round = max(1, files_a_round // pool.shape.head_groups)
        self._counts = Counts(
            *("reads", "writes", "no_room", "read_only"),
            *("short_reads", "repaired", "refused", "io_errors"),
        )
        try:
            self._root = open_root(settings, name)
        except BaseException:
            io.close()
            raise
        flags = os.O_DIRECT if io.is_direct else 0
        num_spares = settings.num_spares
        self._spares = Spares(self._root, self._object_bytes, num_spares, flags)
        self._drafts = Drafts(self._layout, self._spares)
        self._files = PageFiles(self._layout, pool.shape, self._drafts, self._counts, flags)
        self._small = SmallFiles(self._layout, self._drafts)
        self._account = account_of(self._root, settings.capacity_bytes)
        self._round_threads = Workers(settings.rounds_at_once, f"l3-{name}-round")
        self._threads: Workers | None = None
        if settings.num_threads > 1:
            self._threads = Workers(settings.num_threads, f"l3-{name}")

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        with self._call() as (root, faults):
            return self._each(partial(self._files.has, root, faults), keys)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        with self._call() as (root, faults):
            found = self._in_rounds(partial(self._read_round, root, faults), keys, slots)
            used = compress(keys, found)
            self._account.touch([item for key in used for item in self._ids(key)])
            return found

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        with self._call() as (root, faults):
            return self._in_rounds(partial(self._write_round, root, faults), keys, slots)

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        with self._call() as (root, faults):
            removed = self._each(partial(self._files.remove, root, faults), keys)
            self._account.removed([o for key in compress(keys, removed) for o in self._ids(key)])
            return removed

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
        mode = {"is_direct": float(self._io.is_direct)}
        return self._counts.snapshot() | mode | self._account.stats() | self._io.stats()

    def clear(self) -> None:
        with self._call() as (root, faults):
            remove_files(root, faults, self._layout.home)
            self._account.cleared(self._layout.namespace)

    def objects(self) -> Iterator[StoredObject]:
        with self._call() as (root, faults):
            for batch in _batches(list_objects(root, faults)):
                yield from self._with_last_use(batch)

    def close(self) -> None:
        self._round_threads.stop()
        if self._threads is not None:
            self._threads.stop()
        self._io.close()
        self._spares.close()
        self._account.close()

    def _with_last_use(self, listed: Sequence[StoredObject]) -> Iterator[StoredObject]:
        """The account knows it better than the file system."""
        ids = {o: ObjectId(o.namespace, o.key, o.group) for o in listed if o.key is not None}
        used_at = self._account.used_at(list(ids.values()))
        for item in listed:
            yield item._replace(
                used_at=used_at.get(ids[item], item.used_at) if item in ids else item.used_at
            )

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
        are_read = iter([self._files.is_read(faults, length) for length in lengths])
        return [bool(fds) and all([next(are_read) for _ in fds]) for fds in pages]

    def _write_round(
        self, root: OpenRoot, faults: ObjectFaults, keys: Sequence[bytes], slots: Sequence[int]
    ) -> list[bool]:
        begun = self._each(partial(self._files.begin, root, faults), keys)
        parts = [
            _Part(i, slots[i], ObjectId(self._layout.namespace, keys[i], group), draft)
            for i, drafts in enumerate(begun)
            for group, draft in (drafts or {}).items()
        ]
        stored = [drafts is not None for drafts in begun]
        try:
            for part, is_stored in zip(parts, self._write(root, faults, parts), strict=True):
                stored[part.page] &= is_stored
        finally:
            for part in parts:
                self._io.forget(part.draft.fd)
                self._drafts.end(root, part.draft)
        known = [drafts is not None and len(drafts) < len(self._groups) for drafts in begun]
        self._account.touch([item for key in compress(keys, known) for item in self._ids(key)])
        return stored

    def _write(self, root: OpenRoot, faults: ObjectFaults, parts: Sequence[_Part]) -> list[bool]:
        """Take room for the parts, write those that got some, and publish what is whole."""
        if not parts:
            return []
        granted = self._account.reserve(root, [part.id for part in parts], self._object_bytes)
        lengths = iter(
            self._io.write(
                [Transfer(p.draft.fd, p.slot, p.id.group) for p in compress(parts, granted)]
            )
        )
        results = [next(lengths) if is_granted else -errno.ENOSPC for is_granted in granted]
        drafts = [part.draft for part in parts]
        stored = self._each(partial(self._files.finish, root, faults), drafts, results)
        failed = [p.id for p, ok, had in zip(parts, stored, granted, strict=True) if had and not ok]
        self._account.settle([part.id for part in compress(parts, stored)], failed)
        num_refused = sum(
            -length in NO_ROOM for length, had in zip(results, granted, strict=True) if had
        )
        if not all(stored):
            self._spares.drop()  # their room is needed, or they lie where the root was before
        if num_refused:
            self._account.ran_full(root, num_refused * self._object_bytes)
        return stored

    def _ids(self, key: bytes) -> list[ObjectId]:
        return [ObjectId(self._layout.namespace, key, group) for group in self._groups]

    # --- around a call --------------------------------------------------------------------------

    @contextlib.contextmanager
    def _call(self) -> Iterator[tuple[OpenRoot, ObjectFaults]]:
        faults = ObjectFaults(self._counts)
        with store_faults(self._name):
            with self._root.open() as root:
                yield root, faults
            faults.raise_if_all_failed()

    def _each(self, work: Callable[..., Result], *batch: Sequence[Any]) -> list[Result]:
        if self._threads is None:
            return list(map(work, *batch))
        return self._threads.map(work, *batch)

    def _in_rounds(self, work: _Round, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        size = self._pages_a_round
        starts = range(0, len(keys), size)
        if len(starts) <= 1:
            return work(keys, slots) if keys else []
        batches = [(keys[start : start + size], slots[start : start + size]) for start in starts]
        results = self._round_threads.map(work, *zip(*batches, strict=True))
        return [is_done for round_ in results for is_done in round_]


def _batches(listed: Iterator[StoredObject]) -> Iterator[list[StoredObject]]:
    while batch := list(islice(listed, _LISTED_AT_ONCE)):
        yield batch

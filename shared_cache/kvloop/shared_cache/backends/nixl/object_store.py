"""Pages as objects of an S3 bucket, moved by NIXL's OBJ plugin.

S3 puts are whole or not at all, so a half-written page is never visible. Of two writers at the same
moment the later replaces the earlier's equal page: S3 has no first-wins here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.backends.directory.faults import Counts
from kvloop.shared_cache.backends.nixl.agent import Operation, Place, PoolAgent, TransferFailed
from kvloop.shared_cache.backends.nixl.config import ObjectConfig, params_of
from kvloop.shared_cache.backends.nixl.names import (
    TOP,
    namespace_prefix,
    record_name,
    stored_object,
)
from kvloop.shared_cache.backends.nixl.page_objects import PageObjects
from kvloop.shared_cache.backends.nixl.s3_bucket import MAX_RECORD_BYTES, S3Bucket
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.workers import Workers

Result = TypeVar("Result")
# NIXL takes the read of a shorter object for a whole one: where an object's last byte is still this
# afterwards, S3 is asked for its size.
_UNREAD = 0xA5


class NixlObjectStore(StorageBackend):
    """See the module."""

    def __init__(self, config: ObjectConfig, pool: HostPool, namespace: bytes) -> None:
        """Raise StorageUnavailable where the bucket cannot be reached or listed."""
        self._namespace = namespace
        self._objects = PageObjects(pool, namespace)
        self._size = self._objects.num_bytes
        self._counts = Counts("gets", "sets", "misfits", "failed_objects", "failed_transfers")
        self._numbers = itertools.count(1)
        self._bucket = S3Bucket(config)
        self._bucket.check()
        self._agent = PoolAgent(config.plugin, params_of(config), pool, config.overdue_s)
        self._workers = Workers(config.num_threads, "l3-s3")

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        return self._objects.all_of(self._query(self._objects.names(keys)))

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        names = self._objects.names(keys)
        is_there = self._objects.all_of(self._query(names))
        groups = self._objects.num_groups
        wanted = [i for i in range(len(names)) if is_there[i // groups]]
        for i in wanted:
            self._objects.view(slots, i)[-1] = _UNREAD
        done = self._move("READ", names, slots, wanted)
        is_unread = [not done[i] or self._objects.view(slots, i)[-1] == _UNREAD for i in wanted]
        suspects = [i for i, is_suspect in zip(wanted, is_unread, strict=True) if is_suspect]
        misfits = self._remove_misfits([names[i] for i in suspects])
        for i, is_misfit in zip(suspects, misfits, strict=True):
            done[i] = done[i] and not is_misfit
        self._counts.add("gets", sum(is_there))
        return self._objects.all_of(done)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        names = self._objects.names(keys)
        stored = self._query(names)
        missing = [i for i, is_stored in enumerate(stored) if not is_stored]
        written = self._move("WRITE", names, slots, missing)
        self._counts.add("sets", sum(written))
        return self._objects.all_of([a or b for a, b in zip(stored, written, strict=True)])

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        names = self._objects.names(keys)
        found = self._query(names)
        self._each(self._bucket.delete, [n for n, there in zip(names, found, strict=True) if there])
        return self._objects.any_of(found)

    def put_small(self, name: str, value: bytes) -> bool:
        if len(value) > MAX_RECORD_BYTES:
            return False
        self._bucket.put(record_name(self._namespace, name), value)
        return True

    def get_small(self, name: str) -> bytes | None:
        return self._bucket.get(record_name(self._namespace, name))

    def stats(self) -> dict[str, float]:
        return self._counts.snapshot() | {"overdue": float(self._agent.num_overdue)}

    def clear(self) -> None:
        names = [found.name for found in self._bucket.objects(namespace_prefix(self._namespace))]
        self._each(self._bucket.delete, names)

    def objects(self) -> Iterator[StoredObject]:
        for found in self._bucket.objects(TOP):
            shown = stored_object(found.name, found.num_bytes, found.changed_at)
            if shown is not None:
                yield shown

    def probe(self) -> None:
        self._bucket.check()

    def close(self) -> None:
        self._workers.stop()
        self._agent.close()

    # --- by NIXL ----------------------------------------------------------------------------------

    def _query(self, names: Sequence[str]) -> list[bool]:
        if not names:
            return []
        try:
            return self._agent.query(names, "OBJ")
        except TransferFailed as error:
            raise StorageUnavailable(f"storage backend 'nixl': OBJ: {error}") from error

    def _move(
        self,
        operation: Operation,
        names: Sequence[str],
        slots: Sequence[int],
        wanted: Sequence[int],
    ) -> list[bool]:
        """Which of all names were moved; those wanted go at once, and one by one if that fails.

        Raises StorageUnavailable where none can be moved and the bucket does not answer either.
        """
        moved = [False] * len(names)
        if not wanted:
            return moved
        if self._try(operation, names, slots, wanted):
            good = set(wanted)
        else:
            self._bucket.check()
            good = {i for i in wanted if self._try(operation, names, slots, [i])}
            self._counts.add("failed_objects", len(wanted) - len(good))
        return [i in good for i in range(len(names))]

    def _try(
        self,
        operation: Operation,
        names: Sequence[str],
        slots: Sequence[int],
        wanted: Sequence[int],
    ) -> bool:
        numbers = [next(self._numbers) for _ in wanted]
        remote = [Place(0, self._size, number) for number in numbers]
        local = [self._objects.place(slots, i) for i in wanted]
        registered = self._agent.register(remote, [names[i] for i in wanted], "OBJ")
        try:
            self._agent.transfer(operation, local, remote, "OBJ")
        except TransferFailed:
            self._counts.add("failed_transfers")
            return False
        finally:
            self._agent.deregister(registered)
        return True

    # --- by S3 itself -----------------------------------------------------------------------------

    def _remove_misfits(self, names: Sequence[str]) -> list[bool]:
        """Which of these are gone or of another size: those are in the way of good ones, since the
        first put wins."""
        sizes = dict(zip(names, self._each(self._bucket.size, names), strict=True))
        misfits = [name for name, size in sizes.items() if size not in (None, self._size)]
        self._counts.add("misfits", len(misfits))
        self._each(self._bucket.delete, misfits)
        return [sizes[name] != self._size for name in names]

    def _each(self, work: Callable[[str], Result], names: Sequence[str]) -> list[Result]:
        return self._workers.map(work, names)

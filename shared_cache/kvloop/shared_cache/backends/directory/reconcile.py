"""Walking over the files in the background to bring the index in line with them."""

from __future__ import annotations

import heapq
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from kvloop.shared_cache.backends.directory.account import ObjectId
from kvloop.shared_cache.backends.directory.faults import Counts, ObjectFaults
from kvloop.shared_cache.backends.directory.index import PENDING_S, Index, Row
from kvloop.shared_cache.backends.directory.layout import SHARD_BYTES, Layout
from kvloop.shared_cache.backends.directory.listing import namespaces, shard_objects, shards
from kvloop.shared_cache.backends.directory.root import StoreRoot

Result = TypeVar("Result")
WALK_EVERY_S = 24 * 3600.0
_LEASE_S = 60.0


class Ask(Protocol):
    """Asks the index; None where it cannot be used now."""

    def __call__(self, work: Callable[[Index], Result]) -> Result | None: ...


class Reconciler:
    """Of one process; only one process walks at a time. Raises OSError where the root is gone."""

    def __init__(self, root: StoreRoot, ask: Ask) -> None:
        self._root = root
        self._ask = ask
        self._id = secrets.token_hex(8)
        self._steps: Iterator[None] | None = None

    def run_for(self, seconds: float) -> None:
        """Go on with the walk that is due, if one is."""
        if self._steps is None and self._is_due() and self._keep_lease():
            self._steps = self._walk()
        until = time.monotonic() + seconds
        while self._steps is not None and time.monotonic() < until:
            try:
                next(self._steps)
            except StopIteration:
                self._steps = None
            except BaseException:
                self._steps = None
                raise

    def _is_due(self) -> bool:
        walks = self._ask(Index.walks)
        now = time.time()
        if walks is None or walks.walker_until > now:
            return False
        return not walks.is_complete or now - walks.walked_at > WALK_EVERY_S

    def _keep_lease(self) -> bool:
        return bool(self._ask(lambda index: index.take_walk(self._id, time.time(), _LEASE_S)))

    def _walk(self) -> Iterator[None]:
        lease_until = time.monotonic() + _LEASE_S / 2
        for prefix in _merged(self._of_files(), self._of_rows()):
            if time.monotonic() > lease_until:
                if not self._keep_lease():
                    return
                lease_until = time.monotonic() + _LEASE_S / 2
            self._reconcile(prefix)
            yield
        self._ask(lambda index: index.end_walk(time.time()))

    def _of_files(self) -> Iterator[bytes]:
        """The shards that there are directories of, in order."""
        faults = ObjectFaults(Counts.of_faults())
        with self._root.open() as root:
            homes = list(namespaces(root, faults))
        for home in homes:
            with self._root.open() as root:
                found = list(shards(root, faults, home))
            for shard in found:
                _, namespace, first, second = shard.split("/")
                yield bytes.fromhex(namespace + first + second)

    def _of_rows(self) -> Iterator[bytes]:
        """The shards that there are rows of, in order."""
        prefix = b""
        while item := self._ask(lambda index, prefix=prefix: index.first_from(prefix)):  # type: ignore[misc]
            shard = item.namespace + item.key[:SHARD_BYTES]
            yield shard
            prefix = shard + b"\xff" * 33

    def _reconcile(self, prefix: bytes) -> None:
        files = self._files(prefix)
        rows = self._ask(lambda index: {row.object: row for row in index.under(prefix)})
        if files is None or rows is None:
            return
        found = [row for item, row in files.items() if item not in rows]
        resized = [r for o, r in files.items() if o in rows and rows[o].num_bytes != r.num_bytes]
        before = time.time() - PENDING_S
        lost = [row for o, row in rows.items() if o not in files and row.used_at < before]
        if found:
            self._ask(lambda index: index.adopt(found))
        if resized:
            self._ask(lambda index: index.resize(resized))
        if lost:
            self._ask(lambda index: index.remove_unused(lost))

    def _files(self, prefix: bytes) -> dict[ObjectId, Row] | None:
        """What lies in one shard; None where it cannot be told."""
        counts = Counts.of_faults()
        namespace = prefix[:32]
        shard = Layout(namespace).shard(prefix[32:])
        with self._root.open() as root:
            listed = list(shard_objects(root, ObjectFaults(counts), shard, namespace))
        if counts.snapshot()["io_errors"]:
            return None
        rows: dict[ObjectId, Row] = {}
        for stored in listed:
            assert stored.key is not None and stored.used_at is not None
            item = ObjectId(namespace, stored.key, stored.group)
            rows[item] = Row(item, stored.num_bytes, stored.used_at)
        return rows


def _merged(*sorted_prefixes: Iterator[bytes]) -> Iterator[bytes]:
    return (prefix for prefix, _ in itertools.groupby(heapq.merge(*sorted_prefixes)))

"""Pages in the memory of a `nixl` memory server: one-sided reads and writes by UCX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.backends.directory.faults import Counts
from kvloop.shared_cache.backends.nixl import messages as m
from kvloop.shared_cache.backends.nixl.agent import Operation, Place, PoolAgent, TransferFailed
from kvloop.shared_cache.backends.nixl.config import MemoryConfig, params_of
from kvloop.shared_cache.backends.nixl.control import ControlClient
from kvloop.shared_cache.backends.nixl.object_table import Listed
from kvloop.shared_cache.backends.nixl.record_table import parse_record_name, record_name
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import object_name, parse_object_name
from kvloop.shared_cache.storage_errors import StorageUnavailable


class NixlMemoryStore(StorageBackend):
    """See the module. A server that restarts is another store: its pages are gone, and this one
    raises StorageUnavailable until it is opened anew."""

    def __init__(self, config: MemoryConfig, pool: HostPool, namespace: bytes) -> None:
        """Raise StorageUnavailable where no server answers."""
        self._pool = pool
        self._namespace = namespace
        self._size = pool.shape.object_bytes
        self._counts = Counts("gets", "sets", "no_room", "expired", "failed_transfers")
        self._control = ControlClient(config.server, config.timeout_s)
        try:
            self._agent = PoolAgent(config.plugin, params_of(config), pool, config.overdue_s)
        except BaseException:
            self._control.close()
            raise
        try:
            self._peer = self._agent.add_peer(self._control.welcome.metadata)
        except Exception as error:
            self._agent.close()
            self._control.close()
            raise StorageUnavailable(
                f"storage backend 'nixl': the memory server at {config.server} cannot be reached "
                f"by UCX: {error}"
            ) from error

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        return self._by_key(self._control.ask(m.Exists(self._names(keys), self._size), m.Flags).flags)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        if not keys:
            return []
        leases = self._control.ask(m.Locate(self._names(keys), self._size), m.Leases).leases
        held = [lease.ticket for lease in leases if lease.ticket]
        is_found = self._by_key([lease.ticket > 0 for lease in leases])
        groups = self._pool.shape.head_groups
        try:
            wanted = [i for i in range(len(leases)) if is_found[i // groups]]
            offsets = [leases[i].offset for i in wanted]
            self._transfer("READ", [self._place(slots, i) for i in wanted], offsets)
        finally:
            ended = self._control.ask(m.Release(held), m.Flags).flags if held else []
        in_time = dict(zip(held, ended, strict=True))
        self._counts.add("expired", ended.count(False))
        self._counts.add("gets", sum(is_found))
        return self._by_key([in_time.get(lease.ticket, False) for lease in leases])

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        if not keys:
            return []
        grants = self._control.ask(m.Reserve(self._names(keys), self._size), m.Grants).grants
        mine = [i for i, grant in enumerate(grants) if grant.state == "reserved"]
        tickets = [grants[i].ticket for i in mine]
        try:
            places = [self._place(slots, i) for i in mine]
            self._transfer("WRITE", places, [grants[i].offset for i in mine])
        except StorageUnavailable:
            self._control.ask(m.Abort(tickets), m.Flags)
            raise
        stored = [grant.state == "stored" for grant in grants]
        flags = self._control.ask(m.Commit(tickets), m.Flags).flags if tickets else []
        for i, is_stored in zip(mine, flags, strict=True):
            stored[i] = is_stored
        self._counts.add("sets", len(mine))
        self._counts.add("expired", flags.count(False))
        self._counts.add("no_room", sum(grant.state == "no_room" for grant in grants))
        return self._by_key(stored)

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        flags = self._control.ask(m.Delete(self._names(keys)), m.Flags).flags
        groups = self._pool.shape.head_groups
        return [any(flags[i : i + groups]) for i in range(0, len(flags), groups)]

    def put_small(self, name: str, value: bytes) -> bool:
        record = m.PutRecord(record_name(self._namespace, name), value)
        return self._control.ask(record, m.Flags).flags == [True]

    def get_small(self, name: str) -> bytes | None:
        return self._control.ask(m.GetRecord(record_name(self._namespace, name)), m.Record).value

    def stats(self) -> dict[str, float]:
        return self._counts.snapshot() | {"overdue": float(self._agent.num_overdue)}

    def clear(self) -> None:
        self._control.ask(m.Clear(f"kvl1-{self._namespace.hex()}-"), m.Flags)

    def objects(self) -> Iterator[StoredObject]:
        for are_records in (False, True):
            after = 0
            while part := self._control.ask(m.List(after, are_records), m.Listing).objects:
                yield from filter(None, map(_stored_object, part))
                after = part[-1].serial

    def probe(self) -> None:
        self._control.ask(m.Exists([], self._size), m.Flags)

    def close(self) -> None:
        self._agent.remove_peer(self._peer)
        self._agent.close()
        self._control.close()

    def _transfer(
        self, operation: Operation, local: Sequence[Place], offsets: Sequence[int]
    ) -> None:
        if not local:
            return
        base = self._control.welcome.base_address
        remote = [Place(base + offset, self._size) for offset in offsets]
        try:
            self._agent.transfer(operation, local, remote, "DRAM", self._peer)
        except TransferFailed as error:
            self._counts.add("failed_transfers")
            raise StorageUnavailable(f"storage backend 'nixl': UCX: {error}") from error

    def _place(self, slots: Sequence[int], index: int) -> Place:
        """Of the object of this index among all groups of all slots."""
        page, group = divmod(index, self._pool.shape.head_groups)
        return Place(self._pool.address(slots[page], group), self._size)

    def _names(self, keys: Sequence[bytes]) -> list[str]:
        groups = range(self._pool.shape.head_groups)
        return [object_name(self._namespace, key, group) for key in keys for group in groups]

    def _by_key(self, found: Iterable[bool]) -> list[bool]:
        """Whether all objects of a key were found, key by key."""
        objects = iter(found)
        groups = self._pool.shape.head_groups
        return [all(page) for page in iter(lambda: list(islice(objects, groups)), [])]


def _stored_object(listed: Listed) -> StoredObject | None:
    """None for a name that is none of ours."""
    name = parse_object_name(listed.name)
    if name is not None:
        return StoredObject(*name, listed.num_bytes, listed.used_at)
    namespace = parse_record_name(listed.name)
    if namespace is not None:
        return StoredObject(namespace, None, 0, listed.num_bytes, listed.used_at)
    return None

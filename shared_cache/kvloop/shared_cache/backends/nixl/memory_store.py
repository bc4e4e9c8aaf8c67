"""Pages in the memory of a `nixl` memory server: one-sided reads and writes by UCX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.backends.directory.faults import Counts
from kvloop.shared_cache.backends.nixl import messages as m
from kvloop.shared_cache.backends.nixl.agent import Operation, Place, PoolAgent, TransferFailed
from kvloop.shared_cache.backends.nixl.config import MemoryConfig, params_of
from kvloop.shared_cache.backends.nixl.control import ControlClient
from kvloop.shared_cache.backends.nixl.names import namespace_prefix, record_name, stored_object
from kvloop.shared_cache.backends.nixl.object_table import Reserved
from kvloop.shared_cache.backends.nixl.page_objects import PageObjects
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable


class NixlMemoryStore(StorageBackend):
    """See the module. A server that restarts is another store: its pages are gone, and this one
    raises StorageUnavailable until it is opened anew."""

    def __init__(self, config: MemoryConfig, pool: HostPool, namespace: bytes) -> None:
        """Raise StorageUnavailable where no server answers."""
        self._namespace = namespace
        self._objects = PageObjects(pool, namespace)
        self._size = self._objects.num_bytes
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
        request = m.Exists(self._objects.names(keys), self._size)
        return self._objects.all_of(self._control.ask(request, m.Flags).flags)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        if not keys:
            return []
        leases = self._control.ask(m.Locate(self._objects.names(keys), self._size), m.Leases).leases
        held = [lease.ticket for lease in leases if lease.ticket]
        is_found = self._objects.all_of([lease.ticket > 0 for lease in leases])
        groups = self._objects.num_groups
        try:
            wanted = [i for i in range(len(leases)) if is_found[i // groups]]
            offsets = [leases[i].offset for i in wanted]
            self._transfer("READ", [self._objects.place(slots, i) for i in wanted], offsets)
        finally:
            ended = self._control.ask(m.Release(held), m.Flags).flags if held else []
        in_time = dict(zip(held, ended, strict=True))
        self._counts.add("expired", ended.count(False))
        self._counts.add("gets", sum(is_found))
        return self._objects.all_of([in_time.get(lease.ticket, False) for lease in leases])

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        if not keys:
            return []
        request = m.Reserve(self._objects.names(keys), self._size)
        grants = self._control.ask(request, m.Grants).grants
        has_room = self._objects.all_of([grant.state != "no_room" for grant in grants])
        groups = self._objects.num_groups
        mine = [i for i, grant in enumerate(grants) if grant.state == "reserved"]
        wanted = [i for i in mine if has_room[i // groups]]
        self._abort([grants[i].ticket for i in mine if not has_room[i // groups]])
        # Where this fails the reservations are left to end by themselves: it is not known whether
        # something is still being written.
        places = [self._objects.place(slots, i) for i in wanted]
        self._transfer("WRITE", places, [grants[i].offset for i in wanted])
        stored = [grant.state == "stored" for grant in grants]
        for i, is_stored in zip(wanted, self._commit(grants, wanted), strict=True):
            stored[i] = is_stored
        self._counts.add("sets", len(wanted))
        self._counts.add("no_room", has_room.count(False))
        return self._objects.all_of(stored)

    def _abort(self, tickets: list[int]) -> None:
        if tickets:
            self._control.ask(m.Abort(tickets), m.Flags)

    def _commit(self, grants: Sequence[Reserved], wanted: Sequence[int]) -> list[bool]:
        if not wanted:
            return []
        flags = self._control.ask(m.Commit([grants[i].ticket for i in wanted]), m.Flags).flags
        self._counts.add("expired", flags.count(False))
        return flags

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        flags = self._control.ask(m.Delete(self._objects.names(keys)), m.Flags).flags
        return self._objects.any_of(flags)

    def put_small(self, name: str, value: bytes) -> bool:
        record = m.PutRecord(record_name(self._namespace, name), value)
        return self._control.ask(record, m.Flags).flags == [True]

    def get_small(self, name: str) -> bytes | None:
        return self._control.ask(m.GetRecord(record_name(self._namespace, name)), m.Record).value

    def stats(self) -> dict[str, float]:
        return self._counts.snapshot() | {"overdue": float(self._agent.num_overdue)}

    def clear(self) -> None:
        self._control.ask(m.Clear(namespace_prefix(self._namespace)), m.Flags)

    def objects(self) -> Iterator[StoredObject]:
        for are_records in (False, True):
            after = 0
            while part := self._control.ask(m.List(after, are_records), m.Listing).objects:
                shown = (stored_object(o.name, o.num_bytes, o.used_at) for o in part)
                yield from filter(None, shown)
                after = part[-1].serial

    def probe(self) -> None:
        self._control.ask(m.Exists([], self._size), m.Flags)

    def close(self) -> None:
        try:
            self._agent.remove_peer(self._peer)
        finally:
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

"""Answers the memory server's requests: from decoded request to reply. No sockets here."""

from __future__ import annotations

from itertools import islice

from kvloop.shared_cache.backends.nixl import messages as m
from kvloop.shared_cache.backends.nixl.object_table import ObjectTable
from kvloop.shared_cache.backends.nixl.record_table import RecordTable

LISTED_AT_ONCE = 4096


class Desk:
    """Not thread-safe. `now` is in seconds since the epoch."""

    def __init__(self, welcome: m.Welcome, objects: ObjectTable, records: RecordTable) -> None:
        self._welcome = welcome
        self._objects = objects
        self._records = records

    def answer(self, request: m.Request, now: float) -> m.Reply:
        """The reply; a request for an earlier run of the server is refused."""
        self._objects.sweep(now)
        if isinstance(request.body, m.Hello):
            return self._greet(request.body)
        if request.epoch != self._welcome.epoch:
            return m.Refusal("it has restarted, and its earlier content is gone")
        return self._serve(request.body, now)

    def _greet(self, hello: m.Hello) -> m.Reply:
        if hello.protocol != m.PROTOCOL:
            return m.Refusal(f"it speaks protocol {m.PROTOCOL}, not {hello.protocol}")
        return self._welcome

    def _serve(self, body: m.Body, now: float) -> m.Reply:
        objects, records = self._objects, self._records
        match body:
            case m.Exists(names, num_bytes):
                return m.Flags(objects.exists(names, num_bytes, now))
            case m.Reserve(names, num_bytes):
                return m.Grants(objects.reserve(names, num_bytes, now))
            case m.Commit(tickets):
                return m.Flags(objects.commit(tickets, now))
            case m.Abort(tickets):
                objects.abort(tickets)
                return m.Flags([])
            case m.Locate(names, num_bytes):
                return m.Leases(objects.locate(names, num_bytes, now))
            case m.Release(tickets):
                return m.Flags(objects.release(tickets))
            case m.Delete(names):
                return m.Flags(objects.delete(names))
            case m.PutRecord(name, value):
                return m.Flags([records.put(name, value, now)])
            case m.GetRecord(name):
                return m.Record(records.get(name, now))
            case m.List(after, are_records):
                listed = records.records(after) if are_records else objects.objects(after)
                return m.Listing(list(islice(listed, LISTED_AT_ONCE)))
            case m.Clear(prefix):
                objects.clear(prefix)
                records.clear(prefix)
                return m.Flags([])
            case _:
                raise AssertionError(body)

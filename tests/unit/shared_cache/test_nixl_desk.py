"""What the memory server answers, without sockets and memory."""

from __future__ import annotations

import threading

import msgspec
import pytest

from kvloop.shared_cache.backends.nixl import messages as m
from kvloop.shared_cache.backends.nixl import server
from kvloop.shared_cache.backends.nixl.desk import Desk
from kvloop.shared_cache.backends.nixl.names import record_name, stored_object
from kvloop.shared_cache.backends.nixl.object_table import ObjectTable
from kvloop.shared_cache.backends.nixl.record_table import MAX_RECORD_BYTES, RecordTable
from kvloop.shared_cache.page_object import object_name

WELCOME = m.Welcome(b"this run", b"metadata", 4096, 1 << 20)
NAMESPACE, KEY = bytes(32), bytes(range(32))


@pytest.fixture
def desk() -> Desk:
    return Desk(WELCOME, ObjectTable(1 << 20, 10.0), RecordTable(1 << 20))


def ask(desk: Desk, body: m.Body, now: float = 1.0) -> m.Reply:
    return desk.answer(m.Request(WELCOME.epoch, body), now)


def test_hello_brings_the_way_to_the_segment(desk: Desk) -> None:
    assert desk.answer(m.Request(b"", m.Hello()), 0) == WELCOME


def test_another_protocol_is_refused(desk: Desk) -> None:
    reply = desk.answer(m.Request(b"", m.Hello(protocol=99)), 0)
    assert isinstance(reply, m.Refusal) and "99" in reply.reason


def test_a_request_for_an_earlier_run_is_refused(desk: Desk) -> None:
    reply = desk.answer(m.Request(b"the last run", m.Exists(["a"], 4096)), 0)
    assert isinstance(reply, m.Refusal) and "restarted" in reply.reason


def test_each_request_ends_what_is_past_its_deadline(desk: Desk) -> None:
    grants = ask(desk, m.Reserve(["a"], 4096))
    assert isinstance(grants, m.Grants)
    ticket = grants.grants[0].ticket
    assert ask(desk, m.Commit([ticket]), 100.0) == m.Flags([False])


def test_clear_takes_records_and_objects_of_one_namespace(desk: Desk) -> None:
    mine, theirs = record_name(NAMESPACE, "x"), record_name(bytes([1]) * 32, "x")
    ask(desk, m.PutRecord(mine, b"1"))
    ask(desk, m.PutRecord(theirs, b"2"))
    ask(desk, m.Clear(f"kvl1-{NAMESPACE.hex()}-"))
    assert ask(desk, m.GetRecord(mine)) == m.Record(None)
    assert ask(desk, m.GetRecord(theirs)) == m.Record(b"2")


def test_records_are_bounded_and_the_least_recently_used_go() -> None:
    records = RecordTable(4000)
    assert all(records.put(name, bytes(500), 0) for name in "abc")
    assert records.get("a", 1) == bytes(500)
    assert records.put("d", bytes(500), 2)
    assert [records.get(name, 3) is not None for name in "abcd"] == [True, False, True, True]
    assert not records.put("e", bytes(4000), 4)


def test_a_record_that_is_too_long_is_refused() -> None:
    assert not RecordTable(1 << 30).put("a", bytes(MAX_RECORD_BYTES + 1), 0)


def test_a_listing_tells_pages_from_records_and_leaves_out_what_is_neither() -> None:
    page = stored_object(object_name(NAMESPACE, KEY, 3), 4096, 7.0)
    assert page is not None and page == (NAMESPACE, KEY, 3, 4096, 7.0)
    record = stored_object(record_name(NAMESPACE, "any"), 5, None)
    assert record == (NAMESPACE, None, 0, 5, None)
    assert stored_object("kvl1-else", 1, None) is None


@pytest.mark.parametrize("num_bytes", [0, -4096])
def test_a_reservation_of_no_bytes_is_not_understood(num_bytes: int) -> None:
    request = m.Request(WELCOME.epoch, m.Reserve(["a"], num_bytes))
    with pytest.raises(msgspec.ValidationError, match="num_bytes"):
        msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=m.Request)


class _Socket:
    """Brings one question after the other, and then the end."""

    def __init__(self, num_questions: int, stop: threading.Event) -> None:
        self._left = num_questions
        self._stop = stop

    def poll(self, _timeout_ms: int) -> bool:
        return True

    def recv_multipart(self) -> list[bytes]:
        self._left -= 1
        if not self._left:
            self._stop.set()
        return [b"client", b"1", msgspec.msgpack.encode(m.Request(WELCOME.epoch, m.Delete([])))]

    def send_multipart(self, _frames: list[bytes], _flags: int) -> None:
        pass


def test_a_clock_that_is_set_back_does_not_turn_back_leases(
    monkeypatch: pytest.MonkeyPatch, desk: Desk
) -> None:
    clock, seen, stop = iter([100.0, 7.0, 101.0]), list[float](), threading.Event()
    monkeypatch.setattr(server.time, "time", lambda: next(clock))
    monkeypatch.setattr(desk, "answer", lambda _, now: seen.append(now) or m.Flags([]))
    server._serve(_Socket(3, stop), desk, stop)  # type: ignore[arg-type]
    assert seen == [100.0, 100.0, 101.0]

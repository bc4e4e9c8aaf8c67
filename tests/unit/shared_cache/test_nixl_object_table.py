"""The memory server's table: who may read and write which part of the segment, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvloop.shared_cache.backends.nixl.extents import Extents
from kvloop.shared_cache.backends.nixl.object_table import QUARANTINE, ObjectTable

SIZE = 4096
LEASE_S = 10.0


def table(num_objects: int = 4) -> ObjectTable:
    return ObjectTable(num_objects * SIZE, LEASE_S)


def store(objects: ObjectTable, *names: str, now: float = 0.0) -> None:
    grants = objects.reserve(names, SIZE, now)
    assert all(grant.state == "reserved" for grant in grants), grants
    assert all(objects.commit([grant.ticket for grant in grants], now))


def test_an_object_is_there_only_once_it_is_committed() -> None:
    objects = table()
    [grant] = objects.reserve(["a"], SIZE, 0)
    assert objects.exists(["a"], SIZE, 0) == [False]
    assert objects.locate(["a"], SIZE, 0)[0].ticket == 0
    assert objects.commit([grant.ticket], 0) == [True]
    assert objects.exists(["a"], SIZE, 0) == [True]
    assert objects.locate(["a"], SIZE, 0)[0].offset == grant.offset


def test_the_first_commit_wins_and_the_later_one_counts_as_done() -> None:
    objects = table()
    [first], [second] = objects.reserve(["a"], SIZE, 0), objects.reserve(["a"], SIZE, 0)
    assert first.offset != second.offset
    assert objects.commit([first.ticket, second.ticket], 0) == [True, True]
    assert objects.locate(["a"], SIZE, 0)[0].offset == first.offset
    assert objects.free_bytes == 3 * SIZE


def test_an_object_of_another_size_is_no_hit_and_is_replaced() -> None:
    objects = table()
    store(objects, "a")
    assert objects.exists(["a"], 2 * SIZE, 0) == [False]
    [grant] = objects.reserve(["a"], 2 * SIZE, 0)
    assert objects.commit([grant.ticket], 0) == [True]
    assert objects.exists(["a"], 2 * SIZE, 0) == [True]
    assert objects.exists(["a"], SIZE, 0) == [False]
    assert objects.free_bytes == 2 * SIZE


def test_a_full_segment_evicts_what_was_used_least_recently() -> None:
    objects = table(3)
    store(objects, "a", "b", "c")
    objects.exists(["a"], SIZE, 1)
    store(objects, "d", now=2)
    assert objects.exists(["a", "b", "c", "d"], SIZE, 3) == [True, False, True, True]
    assert objects.num_evicted == 1


def test_what_is_being_read_is_not_evicted() -> None:
    objects = table(2)
    store(objects, "a", "b")
    [lease] = objects.locate(["a"], SIZE, 0)
    objects.exists(["b"], SIZE, 1)
    store(objects, "c", now=2)
    assert objects.exists(["a", "b", "c"], SIZE, 2) == [True, False, True]
    objects.locate(["c"], SIZE, 2)
    assert objects.reserve(["d"], SIZE, 2)[0].state == "no_room"
    assert objects.release([lease.ticket]) == [True]
    assert objects.reserve(["d"], SIZE, 2)[0].state == "reserved"


def test_the_space_of_a_deleted_object_waits_for_its_readers() -> None:
    objects = table()
    store(objects, "a")
    [one], [two] = objects.locate(["a"], SIZE, 0), objects.locate(["a"], SIZE, 0)
    assert objects.delete(["a", "b"]) == [True, False]
    assert objects.exists(["a"], SIZE, 0) == [False] and objects.free_bytes == 3 * SIZE
    objects.release([one.ticket])
    assert objects.free_bytes == 3 * SIZE
    objects.release([two.ticket])
    assert objects.free_bytes == 4 * SIZE


def test_a_lease_that_has_ended_tells_its_reader_so() -> None:
    objects = table()
    store(objects, "a")
    [lease] = objects.locate(["a"], SIZE, 0)
    objects.sweep(LEASE_S - 1)
    [other] = objects.locate(["a"], SIZE, LEASE_S - 1)
    objects.sweep(LEASE_S)
    assert objects.release([lease.ticket, other.ticket]) == [False, True]


def test_a_late_writer_stores_nothing_and_its_space_is_kept_aside() -> None:
    objects = table()
    [grant] = objects.reserve(["a"], SIZE, 0)
    objects.sweep(LEASE_S)
    assert objects.commit([grant.ticket], LEASE_S) == [False]
    assert objects.exists(["a"], SIZE, LEASE_S) == [False]
    objects.sweep(LEASE_S * QUARANTINE)
    assert objects.free_bytes == 3 * SIZE
    objects.sweep(LEASE_S * (QUARANTINE + 1))
    assert objects.free_bytes == 4 * SIZE


def test_an_aborted_reservation_gives_its_space_back_at_once() -> None:
    objects = table()
    [grant] = objects.reserve(["a"], SIZE, 0)
    objects.abort([grant.ticket, 999])
    assert objects.free_bytes == 4 * SIZE and objects.num_tickets == 0
    assert objects.commit([grant.ticket], 0) == [False]


def test_clear_removes_one_prefix_and_no_other() -> None:
    objects = table()
    store(objects, "x-1", "x-2", "y-1")
    objects.clear("x-")
    assert [listed.name for listed in objects.objects()] == ["y-1"]


def test_a_listing_in_parts_shows_each_object_once_while_others_come_and_go() -> None:
    objects = table()
    store(objects, "a", "b", "c", "d")
    first, second, *_ = objects.objects()
    objects.delete(["a"])
    objects.exists(["b"], SIZE, 5)
    rest = list(objects.objects(second.serial))
    assert [first.name, second.name, *(listed.name for listed in rest)] == ["a", "b", "c", "d"]
    assert rest[0].num_bytes == SIZE


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=60))
def test_parts_of_a_segment_never_overlap_and_all_come_back(
    steps: list[tuple[bool, int]],
) -> None:
    extents, taken = Extents(16), dict[int, int]()
    for is_take, number in steps:
        if is_take and (start := extents.take(number)) is not None:
            assert start >= 0 and start + number <= 16
            assert all(start + number <= s or s + n <= start for s, n in taken.items())
            taken[start] = number
        elif not is_take and taken:
            start = sorted(taken)[number % len(taken)]
            extents.give(start, taken.pop(start))
        assert extents.free_bytes == 16 - sum(taken.values())
    for start, number in taken.items():
        extents.give(start, number)
    assert extents.take(16) == 0

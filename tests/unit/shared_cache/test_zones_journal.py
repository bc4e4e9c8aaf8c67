"""The outbox and its journal: bounded, in order, and taken over when a node is gone."""

from __future__ import annotations

import threading

import pytest

from kvloop.shared_cache.backends.chain.tier import Record
from kvloop.shared_cache.backends.zones.journal import Journal
from kvloop.shared_cache.backends.zones.outbox import Outbox

KEYS = [i.to_bytes(32, "big") for i in range(1, 2001)]
LEASE_S = 30.0


class Records:
    """The local store's small records; can be away."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.is_away = False
        self.num_puts = 0

    def put_small(self, name: str, value: bytes) -> bool:
        self.num_puts += 1
        if not self.is_away:
            self.values[name] = value
        return not self.is_away

    def get_small(self, name: str) -> Record | None:
        return None if self.is_away else Record(self.values.get(name))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def journal(records: Records, clock: Clock, zone: str = "edge", max_pages: int = 1000) -> Journal:
    return Journal(records, zone, max_pages, LEASE_S, clock)


def taken_over(by: Journal, clock: Clock) -> list[bytes]:
    """What it takes over once the others were silent for a lease."""
    assert list(by.orphans()) == []  # seen for the first time
    clock.now += LEASE_S
    return [key for keys in by.orphans() for key in keys]


def test_a_dead_nodes_keys_are_taken_over_in_order(records: Records, clock: Clock) -> None:
    dead = journal(records, clock)
    for start in range(0, 700, 7):
        dead.append(KEYS[start : start + 7])
    assert taken_over(journal(records, clock), clock) == KEYS[:700]


def test_what_was_taken_over_is_not_taken_over_again(records: Records, clock: Clock) -> None:
    journal(records, clock).append(KEYS[:300])
    heir = journal(records, clock)
    assert len(taken_over(heir, clock)) == 300
    assert list(heir.orphans()) == []
    assert taken_over(journal(records, clock), clock) == []
    assert sum(map(len, records.values.values())) == 0  # nothing but empty records is left


def test_an_heir_that_dies_first_leaves_the_keys_to_the_next(
    records: Records, clock: Clock
) -> None:
    journal(records, clock).append(KEYS[:10])
    heir = journal(records, clock)
    list(heir.orphans())
    clock.now += LEASE_S
    assert next(heir.orphans()) == KEYS[:10]  # and it dies before it has written them down
    assert taken_over(journal(records, clock), clock) == KEYS[:10]


def test_a_node_that_beats_is_left_alone(records: Records, clock: Clock) -> None:
    alive, other = journal(records, clock), journal(records, clock)
    alive.append(KEYS[:10])
    for _ in range(10):
        assert list(other.orphans()) == []
        alive.beat()
        clock.now += LEASE_S / 2
    assert taken_over(other, clock) == KEYS[:10]


def test_a_node_that_closed_is_followed_at_once(records: Records, clock: Clock) -> None:
    closed = journal(records, clock)
    closed.append(KEYS[:10])
    closed.release()
    assert list(journal(records, clock).orphans()) == [KEYS[:10]]


def test_a_node_does_not_take_over_its_own_outbox(records: Records, clock: Clock) -> None:
    mine = journal(records, clock)
    mine.append(KEYS[:10])
    assert taken_over(mine, clock) == []


def test_another_zones_outboxes_are_not_touched(records: Records, clock: Clock) -> None:
    journal(records, clock, zone="edge-b").append(KEYS[:10])
    assert taken_over(journal(records, clock, zone="edge-a"), clock) == []


def test_what_was_sent_is_not_left_behind(records: Records, clock: Clock) -> None:
    dead = journal(records, clock)
    dead.append(KEYS[:300])
    dead.done(KEYS[:256])  # two whole segments
    assert taken_over(journal(records, clock), clock) == KEYS[256:300]


def test_a_key_that_comes_again_takes_no_second_place(records: Records, clock: Clock) -> None:
    dead = journal(records, clock, max_pages=128)
    for _ in range(100):
        dead.append(KEYS[:100])
    assert dead.num_unwritten == 0
    assert set(taken_over(journal(records, clock, max_pages=128), clock)) == set(KEYS[:100])
    dead.done(KEYS[:100])
    assert taken_over(journal(records, clock, max_pages=128), clock) == []


def test_when_all_is_sent_nothing_is_left_behind(records: Records, clock: Clock) -> None:
    dead = journal(records, clock)
    for start in range(0, 1000, 10):
        dead.append(KEYS[start : start + 10])
        dead.done(KEYS[start : start + 10])
    assert taken_over(journal(records, clock), clock) == []


def test_records_are_used_again_so_that_their_number_is_bounded(
    records: Records, clock: Clock
) -> None:
    dead = journal(records, clock, max_pages=256)
    for start in range(0, 1900, 100):
        dead.append(KEYS[start : start + 100])
        dead.done(KEYS[max(0, start - 100) : start])
    assert len(records.values) <= 2 + 4  # the list, the head, and a ring of segments
    found = taken_over(journal(records, clock, max_pages=256), clock)
    assert set(KEYS[1800:1900]) <= set(found)


def test_a_full_ring_is_counted_and_nothing_is_overwritten(records: Records, clock: Clock) -> None:
    dead = journal(records, clock, max_pages=128)
    dead.append(KEYS[:500])
    assert dead.num_unwritten == 500 - 3 * 128
    assert taken_over(journal(records, clock, max_pages=128), clock) == KEYS[: 3 * 128]


def test_keys_that_could_not_be_written_down_are_counted_and_written_later(
    records: Records, clock: Clock
) -> None:
    mine = journal(records, clock)
    records.is_away = True
    mine.append(KEYS[:200])
    assert mine.num_unwritten == 200
    records.is_away = False
    mine.beat()
    assert mine.num_unwritten == 0
    assert taken_over(journal(records, clock), clock) == KEYS[:200]


def test_a_list_that_cannot_be_read_is_not_written_over(records: Records, clock: Clock) -> None:
    journal(records, clock).append(KEYS[:3])
    other = journal(records, clock)
    records.get_small = lambda name: None  # type: ignore[method-assign]
    other.append(KEYS[3:5])
    del records.get_small  # type: ignore[method-assign]
    assert taken_over(journal(records, clock), clock)[:3] == KEYS[:3]


def test_keys_that_could_not_be_read_now_are_taken_over_later(
    records: Records, clock: Clock
) -> None:
    dead, heir = journal(records, clock), journal(records, clock)
    dead.append(KEYS[:200])
    dead.release()
    read = records.get_small
    records.get_small = (  # type: ignore[method-assign]
        lambda name: None if name.endswith("-1") else read(name)
    )
    assert [key for keys in heir.orphans() for key in keys] == KEYS[:128]
    del records.get_small  # type: ignore[method-assign]
    assert [key for keys in heir.orphans() for key in keys] == KEYS[:200]


def test_an_outbox_of_another_size_is_taken_over_whole(records: Records, clock: Clock) -> None:
    dead = journal(records, clock, max_pages=256)
    for start in range(0, 1900, 100):
        dead.append(KEYS[start : start + 100])
        dead.done(KEYS[max(0, start - 100) : start])
    dead.release()  # and the site is configured anew
    [found] = journal(records, clock, max_pages=2000).orphans()
    assert set(KEYS[1800:1900]) <= set(found)


def test_how_much_is_unwritten_is_told_while_the_store_hangs(
    records: Records, clock: Clock
) -> None:
    mine, hangs, goes_on = journal(records, clock), threading.Event(), threading.Event()
    mine.append(KEYS[:3])

    def put_small(name: str, value: bytes) -> bool:
        hangs.set()
        return goes_on.wait(30)

    records.put_small = put_small  # type: ignore[method-assign]
    writer = threading.Thread(target=mine.beat)
    writer.start()
    assert hangs.wait(30)
    told: list[int] = []
    asker = threading.Thread(target=lambda: told.append(mine.num_unwritten), daemon=True)
    asker.start()
    asker.join(5)
    goes_on.set()
    writer.join(30)
    assert told == [0]


def test_a_node_puts_itself_back_on_a_list_that_another_one_wrote_over(
    records: Records, clock: Clock
) -> None:
    mine = journal(records, clock)
    mine.append(KEYS[:3])
    records.values["zones-edge-outboxes"] = b""
    mine.beat()
    assert taken_over(journal(records, clock), clock) == KEYS[:3]


def test_a_node_without_pages_writes_nothing(records: Records, clock: Clock) -> None:
    idle = journal(records, clock)
    idle.append([])
    idle.beat()
    idle.release()
    assert list(idle.orphans()) == [] and records.num_puts == 0


def test_damaged_records_are_as_if_they_were_empty(records: Records, clock: Clock) -> None:
    journal(records, clock).append(KEYS[:3])
    [head] = [name for name in records.values if name.count("-") == 2 and "outboxes" not in name]
    records.values[head] = b"\xff\xff"
    records.values["zones-edge-outboxes"] += b"odd"
    assert taken_over(journal(records, clock), clock) == []


def test_after_a_reset_a_new_outbox_is_begun(records: Records, clock: Clock) -> None:
    mine = journal(records, clock)
    mine.append(KEYS[:3])
    records.values.clear()
    mine.reset()
    mine.append(KEYS[3:5])
    assert taken_over(journal(records, clock), clock) == KEYS[3:5]


def test_the_outbox_keeps_the_order_and_each_key_once() -> None:
    outbox = Outbox(100)
    assert outbox.add([KEYS[1], KEYS[0], KEYS[1]]).new == [KEYS[1], KEYS[0]]
    assert outbox.add(KEYS[:3]) == ([KEYS[2]], [])
    assert outbox.first(2) == [KEYS[1], KEYS[0]] and len(outbox) == 3


def test_a_full_outbox_refuses_what_is_new() -> None:
    outbox = Outbox(2)
    assert outbox.add(KEYS[:4]) == (KEYS[:2], KEYS[2:4])
    outbox.settle(KEYS[:1])
    assert outbox.add(KEYS[:4]) == ([KEYS[0]], KEYS[2:4])
    assert outbox.first(9) == [KEYS[1], KEYS[0]]


def test_what_is_dropped_is_waited_for_while_it_is_sent() -> None:
    outbox = Outbox(10)
    outbox.add(KEYS[:3])
    assert outbox.first(1) == KEYS[:1]
    dropped: list[list[bytes]] = []
    drop = threading.Thread(target=lambda: dropped.append(outbox.drop(KEYS[:2], 30.0)))
    drop.start()
    drop.join(0.05)
    assert drop.is_alive()
    outbox.settle()
    drop.join(10)
    assert dropped == [KEYS[:2]] and outbox.first(9) == KEYS[2:3]


def test_the_outbox_wakes_whoever_waits() -> None:
    outbox = Outbox(1)
    outbox.wake()
    outbox.wait(60.0)  # it was woken before
    outbox.add(KEYS[:1])
    outbox.wait(60.0)

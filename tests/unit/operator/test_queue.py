"""Which resource is looked at next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.operator.runtime.queue import GAP_S, LONGEST_DELAY_S, Key, WorkQueue

A, B = Key("PDCluster", "n", "a"), Key("PDCluster", "n", "b")


def test_a_key_is_due_when_it_was_added() -> None:
    queue = WorkQueue()
    queue.add(A, 1.0)
    assert queue.take(1.0) == A


def test_nothing_is_due_before_its_time() -> None:
    queue = WorkQueue()
    queue.add(A, 1.0, after_s=5.0)
    assert queue.take(5.9) is None
    assert queue.next_due() == 6.0
    assert queue.take(6.0) == A


def test_the_one_that_waits_longest_comes_first() -> None:
    queue = WorkQueue()
    queue.add(B, 1.0)
    queue.add(A, 2.0)
    assert [queue.take(3.0), queue.take(3.0)] == [B, A]


def test_many_events_are_one_look() -> None:
    queue = WorkQueue()
    for _ in range(5):
        queue.add(A, 1.0)
    assert queue.take(1.0) == A
    queue.done(A, 1.1, 60.0)
    assert queue.take(2.0) is None


def test_a_key_is_looked_at_once_at_a_time() -> None:
    queue = WorkQueue()
    queue.add(A, 1.0)
    queue.take(1.0)
    queue.add(A, 1.1)
    assert queue.take(1.2) is None


def test_an_event_during_a_look_makes_one_more_look() -> None:
    queue = WorkQueue()
    queue.add(A, 0.0)
    queue.take(0.0)
    queue.add(A, 0.0)
    queue.done(A, 2.0, 60.0)
    assert queue.take(2.0) is None
    assert queue.take(2.0 + GAP_S) == A


def test_a_look_is_repeated_by_time() -> None:
    queue = WorkQueue()
    queue.add(A, 1.0)
    queue.take(1.0)
    queue.done(A, 2.0, 10.0)
    assert queue.take(11.9) is None
    assert queue.take(12.0) == A


def test_an_event_comes_before_the_time_of_the_next_look() -> None:
    queue = WorkQueue()
    queue.add(A, 1.0)
    queue.take(1.0)
    queue.done(A, 2.0, 10.0)
    queue.add(A, 4.0)
    assert queue.take(4.0) == A


def test_a_later_wish_does_not_put_off_an_earlier_one() -> None:
    queue = WorkQueue()
    queue.add(A, 1.0)
    queue.add(A, 1.0, after_s=30.0)
    assert queue.take(1.0) == A


def test_errors_wait_longer_and_longer_up_to_a_bound() -> None:
    queue = WorkQueue()
    queue.add(A, 0.0)
    now, delays = 0.0, []
    for _ in range(8):
        assert queue.take(now) == A
        delays.append(queue.failed(A, now, jitter=0.0))
        now += delays[-1]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, LONGEST_DELAY_S, LONGEST_DELAY_S, LONGEST_DELAY_S]


def test_jitter_shortens_a_delay_to_half_at_most() -> None:
    queue = WorkQueue()
    queue.add(A, 0.0)
    queue.take(0.0)
    assert queue.failed(A, 0.0, jitter=1.0) == 0.25


def test_success_forgets_earlier_errors() -> None:
    queue = WorkQueue()
    queue.add(A, 0.0)
    queue.take(0.0)
    queue.failed(A, 0.0, jitter=0.0)
    queue.take(1.0)
    assert queue.failures(A) == 1
    queue.done(A, 1.0, 10.0)
    assert queue.failures(A) == 0


def test_a_resource_that_is_gone_is_forgotten() -> None:
    queue = WorkQueue()
    queue.add(A, 0.0)
    queue.take(0.0)
    queue.forget(A, 1.0)
    assert queue.take(1e9) is None


def test_a_resource_that_came_again_while_it_was_forgotten_is_looked_at() -> None:
    queue = WorkQueue()
    queue.add(A, 0.0)
    queue.take(0.0)
    queue.add(A, 0.5)
    queue.forget(A, 1.0)
    assert queue.take(1.0 + GAP_S) == A


def test_depth_and_ages_tell_what_waits_and_what_takes_long() -> None:
    queue = WorkQueue()
    queue.add(A, 0.0)
    queue.add(B, 3.0)
    assert (queue.depth(5.0), queue.oldest_s(5.0), queue.longest_s(5.0)) == (2, 5.0, 0.0)
    queue.take(5.0)
    assert (queue.depth(9.0), queue.oldest_s(9.0), queue.longest_s(9.0)) == (1, 6.0, 4.0)


@given(
    st.lists(st.tuples(st.sampled_from(["add", "take", "end", "fail"]), st.sampled_from([A, B])))
)
def test_no_order_of_events_loses_a_key_or_gives_it_twice(steps: list[tuple[str, Key]]) -> None:
    queue, taken, known = WorkQueue(), set(), set()
    now = 0.0
    for step, key in steps:
        now += 0.1
        if step == "add":
            queue.add(key, now)
            known.add(key)
        elif step == "take" and (got := queue.take(now)) is not None:
            assert got not in taken
            taken.add(got)
        elif key in taken and step == "end":
            queue.done(key, now, 10.0)
            taken.remove(key)
        elif key in taken and step == "fail":
            queue.failed(key, now, 0.5)
            taken.remove(key)
    for key in taken:
        queue.done(key, now, 1.0)
    assert {queue.take(now + 100.0), queue.take(now + 100.0)} - {None} == known


def test_a_key_is_named_for_people() -> None:
    assert str(A) == "PDCluster n/a"


@pytest.mark.parametrize("now", [0.0, 7.0])
def test_an_empty_queue_has_nothing(now: float) -> None:
    queue = WorkQueue()
    assert queue.take(now) is None
    assert queue.next_due() is None
    assert queue.oldest_s(now) == queue.longest_s(now) == 0.0

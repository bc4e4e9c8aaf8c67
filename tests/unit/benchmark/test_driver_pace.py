"""When requests are due."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.pace import Pace, gaps_s, starts_s
from kvloop.benchmark.workloads.plan import Branch, Conversation, Turn


def conversation(*turns: dict[str, Any], parent: int | None = None) -> Conversation:
    return Conversation(
        turns=tuple(Turn(output_length=1, **fields) for fields in turns),
        branch=None if parent is None else Branch(parent=parent, turns=1),
    )


def segment(*numbers: int, **fields: Any) -> Segment:
    return Segment(
        **{"arm": "on", "step": 0, "round": 0, "conversations": numbers, "salt": "s", **fields}
    )


def pace(conversations: list[Conversation], **options: Any) -> Pace:
    return Pace(conversations, segment(*range(len(conversations))), DriveOptions(**options))


def test_a_closed_loop_is_due_when_a_client_is_free_and_then_after_it_has_thought() -> None:
    closed = pace([conversation({}, {"think_s": 3.0})])
    assert closed.due_s(0, 0, 0.0) is None
    assert closed.due_s(0, 1, 10.0) == 13.0


def test_turns_with_a_time_are_due_after_the_segments_earliest_one() -> None:
    timed = pace([conversation({"at_s": 105.0}, {"at_s": 130.0}), conversation({"at_s": 100.0})])
    assert [timed.due_s(0, 0, 0.0), timed.due_s(0, 1, 99.0), timed.due_s(1, 0, 0.0)] == [5, 30, 0]


def test_a_turn_that_is_due_before_its_client_has_thought_waits_for_it() -> None:
    timed = pace([conversation({"at_s": 0.0}, {"at_s": 1.0, "think_s": 2.0})])
    assert timed.due_s(0, 1, 10.0) == 1.0 and timed.free_s(0, 1, 10.0) == 12.0


def test_only_conversations_of_the_segment_count_for_its_earliest_time() -> None:
    conversations = [conversation({"at_s": 1.0}), conversation({"at_s": 7.0})]
    assert Pace(conversations, segment(1), DriveOptions()).due_s(1, 0, 0.0) == 0.0


def test_the_time_scale_divides_times_and_thinking() -> None:
    twice = pace(
        [conversation({"at_s": 0.0}, {"at_s": 8.0}), conversation({}, {"think_s": 3.0})],
        time_scale=2,
    )
    assert twice.due_s(0, 1, 0.0) == 4.0 and twice.due_s(1, 1, 10.0) == 11.5


def test_a_branch_is_due_once_its_parent_is_answered_and_its_client_has_thought() -> None:
    conversations = [conversation({}, {}), conversation({"think_s": 1.0}, parent=0)]
    assert pace(conversations).due_s(1, 0, 5.0) == 6.0
    rated = Pace(conversations, segment(0, 1, rate=2.0), DriveOptions())
    assert rated.due_s(1, 0, 5.0) == 6.0


def test_a_rate_counts_requests_and_spreads_first_turns_only() -> None:
    conversations = [conversation({"at_s": 50.0}, {"at_s": 60.0}, {}, {}) for _ in range(3)]
    rated = Pace(conversations, segment(0, 1, 2, rate=8.0), DriveOptions(arrival="uniform"))
    # eight requests a second of four turns each: two conversations a second
    assert [rated.due_s(number, 0, 0.0) for number in range(3)] == [0.0, 0.5, 1.0]
    assert rated.due_s(0, 1, 3.0) == 3.0


def test_branches_count_as_requests_of_their_root() -> None:
    conversations = [conversation({}), conversation({}), conversation({}, {}, parent=0)]
    starts = starts_s(conversations, segment(0, 1, 2, rate=2.0), DriveOptions(arrival="uniform"))
    assert starts == {0: 0.0, 1: 1.0}


def test_arms_of_a_step_and_round_have_equal_times_and_other_seeds_others() -> None:
    conversations = [conversation({}) for _ in range(20)]
    everyone = range(20)

    def starts(seed: int = 0, **fields: Any) -> dict[int, float]:
        mine = segment(*everyone, rate=3.0, **fields)
        return starts_s(conversations, mine, DriveOptions(seed=seed))

    assert starts() == starts(arm="bypassed", salt="other")
    assert (
        len(
            {
                tuple(one.values())
                for one in (starts(), starts(seed=1), starts(round=1), starts(step=1))
            }
        )
        == 4
    )


@pytest.mark.parametrize("arrival", ["poisson", "uniform"])
def test_gaps_are_the_rates_inverse_in_the_mean(arrival: Any) -> None:
    gaps = list(itertools.islice(gaps_s(4.0, arrival, random.Random(1)), 4000))
    assert sum(gaps) / 4000 == pytest.approx(0.25, rel=0.1)
    assert (len(set(gaps)) > 1) == (arrival == "poisson")

"""Which requests of a trace are chosen."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_traces import made_requests, request

from kvloop.benchmark.replay.trace import Request
from kvloop.benchmark.workloads.excerpt import (
    Group,
    Reuse,
    common_ids,
    count_reuse,
    first_requests,
    group_requests,
    pick_conversations,
    without_longer,
)
from kvloop.shared_cache.errors import ConfigError

# Two conversations below a system prompt (0), one that only says it, and one apart from all.
MIXED = [
    request(0, 0, 1),
    request(1, 0, 2),
    request(2, 0),
    request(3, 0, 1, 3),
    request(4, 0, 2, 4),
    request(5, 0, 1, 5),
    request(6, 9),
]


def reuse_of(requests: Sequence[Request], groups: Sequence[Group]) -> Reuse:
    return count_reuse(requests[number] for number in sorted(n for g in groups for n in g))


def test_reuse_is_the_share_of_ids_that_came_before() -> None:
    assert count_reuse(MIXED[:4]) == Reuse(seen=4, ids=8)
    assert count_reuse(MIXED[:4], known=[0]) == Reuse(seen=5, ids=8)
    assert Reuse(seen=4, ids=8).share == 0.5
    assert count_reuse([]).share == 0.0


def test_ids_that_most_requests_have_are_common() -> None:
    assert common_ids(MIXED) == {0}
    assert common_ids([request(0, 1), request(1, 2)]) == frozenset()
    assert common_ids([request(0, 1), request(1, 1)]) == {1}


def test_conversations_are_what_shares_an_id_beyond_the_common_ones() -> None:
    groups = group_requests(MIXED, common_ids(MIXED))
    assert groups == ((0, 3, 5), (1, 4), (2,), (6,))


def test_requests_of_common_ids_alone_are_conversations_of_their_own() -> None:
    requests = [request(0, 0), request(1, 0), request(2, 0)]
    assert group_requests(requests, common_ids(requests)) == ((0,), (1,), (2,))


def test_conversations_with_a_longer_prompt_are_left_out_whole() -> None:
    groups = group_requests(MIXED, common_ids(MIXED))
    assert without_longer(MIXED, groups, 2 * 512) == ((2,), (6,))
    assert without_longer(MIXED, groups, 3 * 512) == groups


def test_the_first_requests_cut_conversations() -> None:
    groups = group_requests(MIXED, common_ids(MIXED))
    assert first_requests(groups, 4) == ((0, 3), (1,), (2,))


def pick(requests: Sequence[Request], limit: int, min_reuse: float, seed: int) -> tuple[Group, ...]:
    common = common_ids(requests)
    return pick_conversations(
        requests,
        group_requests(requests, common),
        common,
        limit=limit,
        min_reuse=min_reuse,
        seed=seed,
    )


@given(
    requests=made_requests(max_size=30),
    limit=st.integers(1, 30),
    min_reuse=st.sampled_from([0.0, 0.2, 0.35, 0.6, 1.0]),
    seed=st.integers(0, 3),
)
def test_what_is_picked_reuses_enough_or_the_flag_is_named(
    requests: list[Request], limit: int, min_reuse: float, seed: int
) -> None:
    limit = min(limit, len(requests))
    try:
        groups = pick(requests, limit, min_reuse, seed)
    except ConfigError as error:
        assert str(error).startswith(f"--min-reuse {min_reuse:g}: no {limit} requests")
        assert min_reuse > 0
        return
    assert groups == pick(requests, limit, min_reuse, seed)
    assert sum(map(len, groups)) == limit
    assert reuse_of(requests, groups).share >= min_reuse
    assert list(groups) == sorted(groups)
    whole = group_requests(requests, common_ids(requests))
    cut = [group for group in groups if group not in whole]
    assert len(cut) <= 1
    assert all(any(group == other[: len(group)] for other in whole) for group in cut)


def chats(num: int, turns: int, first: int) -> list[Request]:
    """Conversations of which each turn holds the one before and one id more."""
    return [
        request(1000 * turn + number, 0, *range(first + 100 * number, first + 100 * number + turn))
        for number in range(num)
        for turn in range(1, turns + 1)
    ]


def test_a_pick_takes_what_reuses_little_as_far_as_the_rest_makes_up_for_it() -> None:
    requests = sorted(chats(20, 6, 10_000) + chats(100, 1, 90_000), key=lambda one: one.at_ms)
    groups = pick(requests, 60, 0.5, seed=0)
    sizes = [len(group) for group in groups]
    assert sizes.count(1) >= 10 and sizes.count(6) >= 3
    assert 0.5 <= reuse_of(requests, groups).share < 0.7


def test_other_seeds_pick_other_conversations() -> None:
    requests = sorted(chats(30, 4, 10_000), key=lambda one: one.at_ms)
    assert pick(requests, 20, 0.35, seed=0) != pick(requests, 20, 0.35, seed=1)


def test_where_draws_spend_too_much_on_one_the_best_conversations_are_taken() -> None:
    chat = [request(turn, 0, *range(10, 10 + turn)) for turn in range(1, 7)]
    good = [request(10 + number, 0, 100 + number) for number in range(10)]
    bad = [
        request(30 + number, 0, *range(900 + 5 * number, 905 + 5 * number)) for number in range(10)
    ]
    for seed in range(4):
        groups = pick([*chat, *good, *bad], 16, 0.6, seed)
        assert groups == (tuple(range(6)), *((number,) for number in range(6, 16)))


def test_a_share_that_no_choice_has_says_what_there_is() -> None:
    requests = sorted(chats(4, 3, 10_000), key=lambda one: one.at_ms)
    with pytest.raises(ConfigError, match=r"--min-reuse 0.9: no 6 requests .* all 12 reuse 0\.\d+"):
        pick(requests, 6, 0.9, seed=0)

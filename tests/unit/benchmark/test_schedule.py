"""Which arm loads the server when."""

from collections import Counter
from itertools import pairwise

import pytest
from bench_runs import Load, branch_of, conversations
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.arms import ARMS, Arm, Segment
from kvloop.benchmark.schedule import MAX_ROUNDS, default_rounds, families, plan_segments, salt
from kvloop.shared_cache.errors import ConfigError


def plan(
    num: int = 12,
    arms: tuple[Arm, ...] = ARMS,
    rates: tuple[float, ...] = (),
    rounds: int | None = 4,
    run_id: str = "run",
    seed: int = 0,
    clients: int | None = 4,
    at_s: float | None = None,
) -> tuple[Segment, ...]:
    load = Load(conversations=conversations(num, at_s=at_s))
    return plan_segments(load, arms, rates, rounds, run_id, seed, clients=clients)


def orders(segments: tuple[Segment, ...]) -> list[tuple[Arm, ...]]:
    rounds = dict.fromkeys((s.step, s.round) for s in segments)
    return [tuple(s.arm for s in segments if (s.step, s.round) == each) for each in rounds]


@given(
    num=st.integers(1, 40),
    rounds=st.integers(1, 50),
    num_arms=st.integers(1, 4),
    num_rates=st.integers(0, 3),
)
def test_every_arm_holds_every_conversation_once_at_each_rate(
    num: int, rounds: int, num_arms: int, num_rates: int
) -> None:
    rates = tuple(float(n + 1) for n in range(num_rates))
    segments = plan(num, ARMS[:num_arms], rates, rounds)
    for arm in ARMS[:num_arms]:
        for step in range(max(1, num_rates)):
            held = [n for s in segments if (s.arm, s.step) == (arm, step) for n in s.conversations]
            assert held == list(range(num))
    assert all(segment.conversations for segment in segments)


def test_all_arms_of_a_round_hold_the_same_conversations() -> None:
    held = {(s.round, s.conversations) for s in plan()}
    assert len(held) == 4


def test_arms_take_turns_instead_of_running_one_after_the_other() -> None:
    assert [s.round for s in plan(rounds=2)] == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("num_arms", [2, 3, 4])
def test_each_arm_comes_first_equally_often(num_arms: int) -> None:
    firsts = Counter(order[0] for order in orders(plan(arms=ARMS[:num_arms], rounds=num_arms)))
    assert firsts == Counter(ARMS[:num_arms])


@pytest.mark.parametrize(("num_arms", "rounds"), [(2, 2), (3, 6), (4, 4)])
def test_each_arm_follows_each_other_one_equally_often(num_arms: int, rounds: int) -> None:
    every = orders(plan(arms=ARMS[:num_arms], rounds=rounds))
    follows = Counter(two for order in every for two in pairwise(order))
    assert len(follows) == num_arms * (num_arms - 1)
    assert len(set(follows.values())) == 1


def test_the_order_goes_on_changing_over_the_steps_of_a_sweep() -> None:
    one, other = orders(plan(arms=("on", "bypassed"), rates=(1.0, 2.0), rounds=1))
    assert one == other[::-1]


def test_another_seed_begins_with_another_arm() -> None:
    assert plan(seed=0)[0].arm != plan(seed=1)[0].arm


def test_branches_are_held_in_their_parents_round() -> None:
    load = Load(conversations=[*conversations(3), branch_of(0), branch_of(2), branch_of(3)])
    assert families(load.conversations) == ((0, 3, 5), (1,), (2, 4))
    segments = plan_segments(load, ("on",), (), 3, "run", 0)
    assert [s.conversations for s in segments] == [(0, 3, 5), (1,), (2, 4)]


def test_salts_are_apart_for_arms_and_steps_and_equal_in_all_rounds() -> None:
    segments = plan(rates=(1.0, 2.0))
    salts = {(s.arm, s.step): s.salt for s in segments}
    assert len(set(salts.values())) == 8
    assert all(s.salt == salts[s.arm, s.step] for s in segments)


def test_salts_have_no_character_that_vllm_refuses() -> None:
    assert not set("@/\\\0") & set(salt("a", "on", 0))


def test_salts_follow_from_the_run_and_differ_between_runs() -> None:
    assert plan(run_id="a") == plan(run_id="a")
    assert {s.salt for s in plan(run_id="a")}.isdisjoint(s.salt for s in plan(run_id="b"))
    assert salt("a", "on", 0) == salt("a", "on", 0)


def test_each_step_offers_its_rate() -> None:
    rates = [(s.step, s.rate) for s in plan(arms=("on",), rates=(2.0, 8.0), rounds=1)]
    assert rates == [(0, 2.0), (1, 8.0)]


def test_by_default_a_round_has_work_for_all_clients() -> None:
    sizes = [len(s.conversations) for s in plan(20, ("on",), rounds=None, clients=8)]
    assert sizes == [10, 10]


def test_default_rounds_are_bounded() -> None:
    assert default_rounds(500, 4) == MAX_ROUNDS
    assert default_rounds(3, 4) == 1


def test_conversations_all_held_at_once_are_cut_into_larger_rounds() -> None:
    assert len(plan(40, ("on",), rounds=None, clients=None)) == 2


def test_an_open_loop_is_cut_as_if_all_were_held_at_once() -> None:
    assert len(plan(40, ("on",), (3.0,), rounds=None, clients=2)) == 2


def test_a_load_with_times_of_its_own_is_cut_once_at_most() -> None:
    assert len(plan(400, ("on",), rounds=None, clients=1, at_s=0.0)) == 2
    assert len(plan(39, ("on",), rounds=None, clients=1, at_s=0.0)) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"arms": ()}, "--arms"),
        ({"arms": ("on", "on")}, "--arms"),
        ({"rates": (0.0,)}, "--rate"),
        ({"rounds": 0}, "--rounds"),
    ],
)
def test_a_wrong_flag_is_named(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan(**wrong)  # type: ignore[arg-type]

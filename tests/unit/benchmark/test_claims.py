"""Every claim has its control, over the same requests."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from bench_runs import Load, MadeRun, branch_of, conversations, failure, sample

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.results.claims import claims, pairs_of
from kvloop.benchmark.results.document import Claim
from kvloop.benchmark.results.pairs import pair
from kvloop.benchmark.sample import Sample

NUM = 8


def held(
    arm: Arm, ttft: Callable[[int, int], float], num: int = NUM, turns: int = 3
) -> list[Sample]:
    """Conversations of some turns; twelve tokens come in the second after the first token."""
    return [
        sample(
            arm,
            conversation,
            turn,
            round=conversation % 2,
            ttft_s=ttft(conversation, turn),
            ended_at=ttft(conversation, turn) + 1,
            itl_s=(0.1,) * 10,
            completion_tokens=11,
        )
        for conversation in range(num)
        for turn in range(1, turns + 1)
    ]


def run_of(*arms: list[Sample], num: int = NUM, **more: object) -> MadeRun:
    load = Load(conversations=conversations(num, 3))
    every = [each for arm in arms for each in arm]
    return MadeRun(samples=every, load=load, rounds=2, **more)  # type: ignore[arg-type]


def fast(conversation: int, turn: int) -> float:
    return 0.4 + 0.01 * conversation if turn > 1 else 1.0


def slow(conversation: int, turn: int) -> float:
    return 2 * fast(conversation, turn) if turn > 1 else 1.0


def claim(run: MadeRun, name: str, arm: Arm = "on", control: Arm = "bypassed") -> Claim:
    (found,) = [c for c in claims(run.data) if (c.name, c.arm, c.control) == (name, arm, control)]
    return found


def test_each_arm_is_set_against_each_control_that_ran() -> None:
    assert pairs_of(("on", "bypassed", "l3_only", "all_miss")) == (
        ("on", "bypassed"),
        ("on", "all_miss"),
        ("l3_only", "bypassed"),
        ("all_miss", "bypassed"),
    )
    assert pairs_of(("on", "all_miss")) == (("on", "all_miss"),)
    assert pairs_of(("on",)) == ()


@pytest.mark.parametrize("sides", [("on",), ("bypassed",), ("on", "bypassed")])
def test_times_between_tokens_that_arrive_together_are_no_ratio(sides: tuple[Arm, ...]) -> None:
    arms = {"on": held("on", fast), "bypassed": held("bypassed", slow)}
    for arm in sides:
        arms[arm] = [replace(each, itl_s=(0.0,) * 10) for each in arms[arm]]
    names = {claim.name for claim in claims(run_of(*arms.values()).data)}
    assert {"itl", "itl_mean"}.isdisjoint(names) and "e2e" in names


def test_the_first_token_of_later_turns_leaves_the_first_turn_out() -> None:
    run = run_of(held("on", fast), held("bypassed", slow))
    later, every = claim(run, "ttft_later_turns"), claim(run, "ttft_mean")
    assert later.value == pytest.approx(0.5)
    assert 0.5 < every.value < 1


def test_a_claim_counts_the_conversations_that_have_such_a_number() -> None:
    longer = [
        each
        for arm, ttft in (("on", fast), ("bypassed", slow))
        for each in held(arm, ttft)  # type: ignore[arg-type]
        if each.turn == 1 or each.conversation < 4
    ]
    run = run_of(longer)
    assert claim(run, "ttft").num_conversations == NUM
    later = claim(run, "ttft_later_turns")
    assert (later.num_conversations, later.low) == (4, None)


def test_all_measures_have_a_median_and_a_mean() -> None:
    names = {c.name for c in claims(run_of(held("on", fast), held("bypassed", slow)).data)}
    measures = ("ttft_later_turns", "ttft", "itl", "tpot", "e2e")
    assert names == {*measures, *(f"{name}_mean" for name in measures), "output_rate"}


def test_itl_tpot_and_whole_answers_are_compared_each_by_its_own() -> None:
    slower = [
        sample("bypassed", n, 1, ttft_s=0.5, ended_at=4.5, itl_s=(0.4,) * 8 + (0.3, 0.3))
        for n in range(NUM)
    ]
    quick = [
        sample("on", n, 1, ttft_s=0.5, ended_at=1.5, itl_s=(0.1,) * 8 + (0.02, 0.02))
        for n in range(NUM)
    ]
    run = MadeRun(samples=[*quick, *slower], load=Load(conversations=conversations(NUM, 1)))
    assert claim(run, "itl").value == pytest.approx(0.25)
    assert claim(run, "itl_mean").value == pytest.approx(0.84 / 3.8)
    assert claim(run, "tpot").value == pytest.approx(0.25)
    assert claim(run, "e2e").value == pytest.approx(1.5 / 4.5)


def test_a_load_of_single_turns_has_no_claim_of_later_ones() -> None:
    one = [held(arm, fast, turns=1) for arm in ("on", "bypassed")]  # type: ignore[arg-type]
    names = {c.name for c in claims(run_of(*one).data)}
    assert "ttft" in names and "ttft_later_turns" not in names


def test_words_say_how_many_times_sooner_with_the_interval_turned_round() -> None:
    def uneven(conversation: int, turn: int) -> float:
        return (1.8, 2.2, 1.9, 2.1, 2.0, 2.0, 1.95, 2.05)[conversation] * fast(conversation, turn)

    found = claim(run_of(held("on", fast), held("bypassed", uneven)), "ttft_later_turns")
    assert found.low is not None and found.high is not None
    assert found.low < found.value < found.high
    assert found.words == (
        f"later turns' first token comes {1 / found.value:.2f} x sooner in the median "
        f"(95 %: {1 / found.high:.2f} to {1 / found.low:.2f}) than with the cache bypassed"
    )


def test_words_say_later_where_the_arm_is_slower() -> None:
    run = run_of(held("all_miss", slow), held("bypassed", fast))
    words = claim(run, "ttft_later_turns_mean", "all_miss").words
    assert words.startswith("where nothing can hit, later turns' first token comes 2.00 x later")


def test_an_interval_with_one_in_it_may_be_no_difference() -> None:
    def other(conversation: int, turn: int) -> float:
        return fast(conversation, turn) * (1.2 if conversation % 2 else 0.8)

    run = run_of(held("on", other), held("bypassed", fast))
    assert "may be no difference" in claim(run, "ttft_later_turns_mean").words


def test_too_few_conversations_give_a_ratio_without_an_interval() -> None:
    run = run_of(held("on", fast, num=4), held("bypassed", slow, num=4), num=4)
    found = claim(run, "ttft_later_turns")
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high, found.num_conversations) == (None, None, 4)
    assert "too few for an interval" in found.words


def test_a_conversation_that_failed_in_one_arm_is_left_out_of_both() -> None:
    ours = [s for s in held("on", fast) if (s.conversation, s.turn) != (0, 3)]
    run = run_of(ours, held("bypassed", slow), failures=[failure("on", 0, 3)])
    both = pair(run.data, "on", "bypassed")
    assert both.num_left_out == 1
    assert len(both.units) == NUM - 1
    assert all(s.conversation for unit in both.units for s in (*unit.arm, *unit.control))


def test_a_conversation_that_failed_in_both_arms_alike_is_left_out() -> None:
    arms = [
        [s for s in held(arm, fast) if (s.conversation, s.turn) != (0, 3)]
        for arm in ("on", "bypassed")
    ]  # type: ignore[arg-type]
    run = run_of(*arms, failures=[failure("on", 0, 3), failure("bypassed", 0, 3)])
    both = pair(run.data, "on", "bypassed")
    assert (both.num_left_out, len(both.units)) == (1, NUM - 1)


def test_a_conversation_cut_short_in_one_arm_is_left_out_of_both() -> None:
    ours = [s for s in held("on", fast) if (s.conversation, s.turn) != (5, 3)]
    both = pair(run_of(ours, held("bypassed", slow)).data, "on", "bypassed")
    assert (both.num_left_out, len(both.units)) == (1, NUM - 1)


def test_another_arms_failure_leaves_a_pair_as_it_is() -> None:
    arms = [held("on", fast), held("bypassed", slow), held("all_miss", slow)]
    run = run_of(*arms, failures=[failure("all_miss", 0, 3)])
    assert pair(run.data, "on", "bypassed").num_left_out == 0


def test_branches_are_drawn_with_their_parents() -> None:
    load = Load(conversations=[*conversations(6, 1), branch_of(0), branch_of(0)])
    every = [sample(arm, n, 1) for arm in ("on", "bypassed") for n in range(8)]  # type: ignore[arg-type]
    both = pair(MadeRun(samples=every, load=load).data, "on", "bypassed")
    assert [len(unit.arm) for unit in both.units] == [3, 1, 1, 1, 1, 1]


def test_requests_are_paired_within_their_step() -> None:
    every = [
        sample(arm, n, 1, step=step, ttft_s=(1.0 + step) * (1 if arm == "on" else 4))
        for arm in ("on", "bypassed")
        for step in (0, 1)
        for n in range(5)
    ]  # type: ignore[arg-type]
    load = Load(conversations=conversations(5, 1))
    run = MadeRun(samples=every, load=load, rates=(1.0, 2.0))
    assert [len(unit.arm) for unit in pair(run.data, "on", "bypassed").units] == [2] * 5
    assert claim(run, "ttft").value == pytest.approx(0.25)


def test_the_output_rate_is_over_the_segments_seconds_with_an_interval_over_rounds() -> None:
    every = [
        sample(arm, n, 1, round=n, completion_tokens=300 if arm == "on" else 200)
        for arm in ("on", "bypassed")
        for n in range(6)
    ]  # type: ignore[arg-type]
    run = MadeRun(samples=every, load=Load(conversations=conversations(6, 1)), rounds=6)
    rate = claim(run, "output_rate")
    assert (rate.value, rate.low, rate.high) == pytest.approx((1.5, 1.5, 1.5))
    assert rate.words == (
        "the server gives 1.50 x more output tokens a second (95 % over 6 rounds: 1.50 to 1.50) "
        "than with the cache bypassed"
    )


def test_one_round_is_no_rounds() -> None:
    run = run_of(held("on", fast), held("bypassed", slow))
    assert "(2 rounds: too few" in claim(run, "output_rate").words
    every = [replace(each, round=0) for each in run.samples]
    assert "(1 round: too few" in claim(replace(run, samples=every, rounds=1), "output_rate").words


def test_a_run_without_answers_claims_nothing() -> None:
    run = MadeRun(failures=[failure("on"), failure("bypassed")])
    assert claims(run.data) == ()

"""What reuse saved, by the nodes' own account or by TTFT."""

import pytest
from bench_runs import Load, MadeRun, conversations, failure, sample

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.node_seconds import SegmentSeconds
from kvloop.benchmark.results.answers import compare_answers
from kvloop.benchmark.results.savings import savings

NUM = 6
ARMS: tuple[Arm, ...] = ("on", "bypassed", "all_miss")
TTFT = {"on": 0.5, "bypassed": 1.5, "all_miss": 1.75, "l3_only": 0.6}
NODE_S = {"on": 2.0, "bypassed": 5.0, "all_miss": 6.0, "l3_only": 2.5}


def run_of(*arms: Arm) -> MadeRun:
    every = [sample(arm, n, 1, round=n, ttft_s=TTFT[arm]) for arm in arms for n in range(NUM)]
    return MadeRun(samples=every, load=Load(conversations=conversations(NUM, 1)), rounds=NUM)


def measured(*arms: Arm, rounds: int = NUM) -> list[SegmentSeconds]:
    return [
        SegmentSeconds(arm=arm, step=0, round=number, seconds=NODE_S[arm])
        for arm in arms
        for number in range(rounds)
    ]


def test_measured_seconds_are_those_of_the_control_less_those_with_reuse() -> None:
    saved = savings(run_of(*ARMS).data, measured(*ARMS), None)
    assert saved is not None and saved.how.startswith("measured")
    assert (saved.arm, saved.control) == ("on", "bypassed")
    assert (saved.gpu_s, saved.low, saved.high) == pytest.approx((18.0, 18.0, 18.0))
    assert saved.per_1000_requests_s == pytest.approx(3000)


def test_without_the_nodes_seconds_they_are_estimated_from_ttft_and_it_is_said() -> None:
    saved = savings(run_of(*ARMS).data, [], None)
    assert saved is not None and saved.gpu_s == pytest.approx(6.0)
    assert saved.how.startswith("estimated") and "at most" in saved.how


def test_a_round_that_was_measured_for_one_arm_only_is_left_out() -> None:
    seconds = [*measured("on"), *measured("bypassed", rounds=2)]
    saved = savings(run_of(*ARMS).data, seconds, None)
    assert saved is not None and saved.how.startswith("measured")
    assert (saved.low, saved.high) == (None, None)
    assert saved.per_1000_requests_s == pytest.approx(3000)


def test_another_server_is_set_against_prompts_that_cannot_hit() -> None:
    saved = savings(run_of("on", "all_miss").data, [], None)
    assert saved is not None and saved.control == "all_miss"
    assert saved.gpu_s == pytest.approx(7.5)


def test_the_price_is_of_the_seconds_of_a_thousand_requests() -> None:
    saved = savings(run_of(*ARMS).data, measured(*ARMS), 2.4)
    assert saved is not None and saved.price_per_1000_requests == pytest.approx(2.0)
    free = savings(run_of(*ARMS).data, measured(*ARMS), None)
    assert free is not None and free.price_per_1000_requests is None


def test_without_a_control_or_an_answer_nothing_was_saved() -> None:
    assert savings(run_of("on", "l3_only").data, [], 1.0) is None
    assert savings(run_of("bypassed", "all_miss").data, [], 1.0) is None
    assert savings(MadeRun(failures=[failure("on"), failure("bypassed")]).data, [], 1.0) is None


def test_answers_are_compared_request_by_request_over_the_arms() -> None:
    answers = [
        sample("on", 0, 1, answer_digest="a"),
        sample("bypassed", 0, 1, answer_digest="a"),
        sample("l3_only", 0, 1, answer_digest="b"),
        sample("on", 1, 1, answer_digest="c"),
        sample("bypassed", 1, 1, answer_digest="c"),
    ]
    assert compare_answers(answers) == (2, 1)


def test_answers_to_prompts_of_their_own_are_not_compared() -> None:
    assert compare_answers([sample(answer_digest="a"), sample("all_miss", answer_digest="b")]) == (
        0,
        0,
    )


def test_an_answer_that_one_arm_gave_is_not_compared() -> None:
    assert compare_answers([sample(answer_digest="a"), sample("bypassed", 0, 2)]) == (0, 0)

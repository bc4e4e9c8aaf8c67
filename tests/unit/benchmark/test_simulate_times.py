"""The simulator's times, on cases that can be followed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated import profile, prompt, simulate, timed

from kvloop.benchmark.simulate.device import find_device
from kvloop.benchmark.simulate.model_shape import read_model
from kvloop.benchmark.simulate.profile import profile_of
from kvloop.shared_cache.errors import ConfigError


def near(seconds: float) -> object:
    return pytest.approx(seconds, rel=1e-3)


def test_a_prompt_alone_takes_its_computing_and_its_steps() -> None:
    (one,) = simulate(timed(prompt(0, 100))).served
    assert one.ttft_s == near(0.1)
    assert one.tpot_s == near(0.01) and one.e2e_s == near(0.1 + 10 * 0.01)


@pytest.mark.parametrize(
    ("costs", "seconds"),
    [
        ({"prefill_floor_s": 0.5}, 0.5),
        ({"prefill_request_s": 0.5}, 0.6),
        ({"prefill_pair_s": 1e-4}, 0.1 + 100 * 50 * 1e-4),
        ({"prefill_context_s": 0.001}, 0.2),
        ({"prefill_floor_s": 0.05, "chunk_tokens": 32}, 3 * 0.05 + 0.05),
    ],
)
def test_each_cost_of_prefill_counts(costs: dict[str, float], seconds: float) -> None:
    (one,) = simulate(timed(prompt(0, 100)), profile(**costs)).served
    assert one.compute_s == near(seconds)


@pytest.mark.parametrize(
    ("costs", "seconds"),
    [
        ({"decode_floor_s": 0.03}, 0.03),
        ({"decode_sequence_s": 0.005}, 0.015),
        ({"decode_context_s": 1e-4}, 0.01 + (100 + 4.5) * 1e-4),
    ],
)
def test_each_cost_of_decode_counts(costs: dict[str, float], seconds: float) -> None:
    (one,) = simulate(timed(prompt(0, 100)), profile(**costs)).served
    assert one.tpot_s == near(seconds)


def test_answers_grow_together_and_pay_for_each_other() -> None:
    costs = profile(decode_sequence_s=0.01, prefill_token_s=0.0)
    alone = simulate(timed(prompt(0, 100)), costs).served
    both = simulate(timed(prompt(0, 100), prompt(1, 100)), costs).served
    assert alone[0].tpot_s == near(0.02)
    # one of them may begin a step before the other
    assert [one.tpot_s for one in both] == [pytest.approx(0.03, abs=0.0011)] * 2


def test_who_joins_waits_for_the_step_under_way() -> None:
    late = prompt(1, 5, at_s=0.105)
    first, second = simulate(timed(prompt(0, 100), late)).served
    # its first token is there at 0.11, in mid-run; all steps still take 10 ms
    assert first.e2e_s == near(0.2) and second.tpot_s == near(0.01)
    assert second.at_s + second.e2e_s == near(0.21)


def test_prompts_queue_for_a_prefill_node_and_not_for_two() -> None:
    load = timed(prompt(0, 200), prompt(1, 200))
    one = simulate(load).served
    assert [served.queue_s for served in one] == [near(0.0), near(0.2)]
    two = simulate(load, prefill=2).served
    assert [served.ttft_s for served in two] == [near(0.2), near(0.2)]
    assert {served.prefill for served in two} == {0, 1}


def test_small_prompts_share_a_step_until_it_has_enough() -> None:
    load = timed(*(prompt(number, 60, output_length=1) for number in range(4)))
    first, *others = simulate(load, profile(prefill_floor_s=0.5)).served
    assert first.ttft_s == near(0.5)
    # the first comes alone; then 180 tokens: two have 120, which is not enough, three have
    assert [one.ttft_s for one in others] == [near(1.0)] * 3


def test_a_request_waits_until_decode_has_pages_for_it() -> None:
    costs = profile(memory_bytes=10 * 16 * 1000.0)
    load = timed(prompt(0, 100), prompt(1, 100))
    first, second = simulate(load, costs, l2_pages=50, l1_pages=50).served
    assert first.reserve_s == 0.0 and second.reserve_s == near(first.e2e_s)
    two = simulate(load, costs, l2_pages=50, l1_pages=50, decode=2).served
    assert [one.reserve_s for one in two] == [0.0, 0.0]
    assert {one.decode for one in two} == {0, 1}


def test_no_more_than_max_running_are_taken_at_once() -> None:
    load = timed(prompt(0, 100), prompt(1, 100))
    _, second = simulate(load, profile(max_running=1)).served
    assert second.reserve_s == near(0.2)


def test_a_later_turn_computes_what_is_new_and_comes_when_it_was_answered() -> None:
    second = prompt(1, 200, chat=0, turn=2, follows=0, delay_s=1.0)
    first, later = simulate(timed(prompt(0, 100), second)).served
    assert later.at_s == near(first.e2e_s + 1.0)
    assert later.found.device == 96 and later.found.computed == 200 - 96
    assert later.ttft_s == near(0.104)
    assert later.held_tokens == 96 and later.usage.device == 0


def test_pages_that_decode_stored_are_read_from_l3() -> None:
    # an answer of 41 tokens fills pages 6 and 7; the next turn is another decode node's
    second = prompt(1, 200, chat=0, follows=0, delay_s=1.0)
    load = timed(prompt(0, 100, output_length=41), second)
    later = simulate(load).served[1]
    assert (later.found.device, later.found.storage_by_decode) == (96, 32)
    alone = simulate(load, offloads=False).served[1]
    assert alone.found.storage_by_decode == 0


def test_a_turn_that_follows_at_once_waits_for_what_decode_is_storing() -> None:
    second = prompt(1, 200, chat=0, follows=0)
    load = timed(prompt(0, 100, output_length=41), second)
    costs = profile(fetch_latency_s=0.05)
    later = simulate(load, costs, prefetch_policy="wait_complete").served[1]
    assert later.found.storage_by_decode == 32 and later.reserve_s == near(0.05)


def test_a_turn_waits_half_a_second_at_most_for_what_decode_is_storing() -> None:
    second = prompt(1, 200, chat=0, follows=0)
    load = timed(prompt(0, 100, output_length=41), second)
    assert simulate(load, profile(fetch_latency_s=5.0)).served[1].reserve_s == near(0.5)


def test_nodes_that_are_equal_get_prompts_in_turn() -> None:
    load = timed(*(prompt(n, 20, at_s=10.0 * n) for n in range(6)))
    served = simulate(load, prefill=3, decode=2).served
    assert [one.prefill for one in served[3:]] == [one.prefill for one in served[:3]]
    assert {one.prefill for one in served} == {0, 1, 2}
    assert [one.decode for one in served[::2]] == [served[0].decode] * 3
    assert {one.decode for one in served} == {0, 1}


def test_what_comes_from_l2_takes_its_time_on_the_bus_beside_computing() -> None:
    # L1 holds one prompt: the second takes the first one's pages out
    turns = [prompt(0, 320), prompt(1, 336, at_s=10.0), prompt(2, 336, chat=0, at_s=20.0)]
    sizes = {"l1_pages": 21, "l2_pages": 60}
    quick = simulate(timed(*turns), **sizes).served[2]
    assert quick.found.host == 320 and quick.ttft_s == near(0.016)
    slow = simulate(timed(*turns), profile(pcie_bytes_per_s=320_000.0), **sizes)
    # 320 tokens of 1,000 bytes take a second; the last layer is computed behind them
    assert slow.served[2].ttft_s == near(1.0 + 0.016 / 10)
    assert slow.use.pcie_up_bytes == 320_000


@pytest.mark.parametrize(
    ("changes", "costs", "seconds"),
    [
        ({"l3_gbps": 0.00256}, {}, 1.0),
        ({"network_gbps": 0.00256}, {}, 1.0),
        ({}, {"fetch_token_s": 0.001}, 0.32),
        ({}, {"fetch_latency_s": 0.2}, 0.4),
    ],
)
def test_what_comes_from_l3_is_waited_for(
    changes: dict[str, float], costs: dict[str, float], seconds: float
) -> None:
    others = [prompt(n, 320, at_s=1000.0 * n) for n in (1, 2)]
    turns = timed(prompt(0, 320), *others, prompt(3, 336, chat=0, at_s=5000.0))
    small = {"l1_pages": 21, "l2_pages": 21, "prefetch_policy": "wait_complete"}
    # half of L2 may hold pages on their way
    late = simulate(turns, profile(**costs), **{**small, "l2_pages": 40}, **changes).served[3]
    assert late.found.storage == 320
    assert late.queue_s == near(seconds)


def test_a_card_that_reads_from_l3_is_not_the_one_that_decode_receives_by() -> None:
    others = [prompt(n, 320, at_s=1000.0 * n) for n in (1, 2)]
    late = [prompt(3, 336, chat=0, at_s=5000.0), prompt(4, 320, at_s=5000.0, output_length=1)]
    sizes = {"l1_pages": 21, "l2_pages": 40, "prefetch_policy": "wait_complete"}
    ran = simulate(timed(prompt(0, 320), *others, *late), network_gbps=0.00256, **sizes)
    assert ran.served[3].found.storage == 320
    # 320,000 bytes a second each way: it is sent while the other one's pages come
    assert ran.served[4].ttft_s == near(1.0)


def test_a_prompt_does_not_wait_for_an_l3_that_is_slower_than_computing() -> None:
    others = [prompt(n, 320, at_s=1000.0 * n) for n in (1, 2)]
    load = timed(prompt(0, 320), *others, prompt(3, 336, chat=0, at_s=5000.0))
    costs = profile(fetch_token_s=0.1)
    sizes = {"l1_pages": 21, "l2_pages": 40}
    patient = simulate(load, costs, prefetch_policy="wait_complete", **sizes).served[3]
    eager = simulate(load, costs, prefetch_policy="best_effort", **sizes).served[3]
    limited = simulate(load, costs, prefetch_policy="timeout", **sizes).served[3]
    assert patient.queue_s > 10 * eager.queue_s and limited.queue_s <= 1.2
    assert eager.found.computed == 336


def test_kv_is_sent_while_it_is_computed_and_the_last_layer_behind() -> None:
    load = timed(prompt(0, 100))
    # 100,000 bytes take 0.08 s of 0.1 s: only a tenth is left when computing has ended
    beside = simulate(load, network_gbps=0.01).served[0]
    assert beside.send_s == near(0.008)
    behind = simulate(load, network_gbps=0.001).served[0]
    assert behind.ttft_s == near(0.8)


def test_a_decode_node_takes_no_more_than_its_own_network_card() -> None:
    load = timed(prompt(0, 100), prompt(1, 100))
    # each has 100,000 bytes, 0.8 s of a card: two prefill nodes send at once
    one = simulate(load, prefill=2, network_gbps=0.001)
    assert [served.ttft_s for served in one.served] == [near(0.8), near(1.6)]
    assert one.use.received_bytes == 200_000
    two = simulate(load, prefill=2, decode=2, network_gbps=0.001).served
    assert [served.ttft_s for served in two] == [near(0.8), near(0.8)]


@pytest.mark.parametrize(
    ("history", "tokens", "direct_ms", "kernel_ms"),
    [(16384, 512, 48.0, 56.4), (16384, 64, 43.2, 49.6), (4096, 64, 21.4, 23.1)],
)
def test_a_history_in_l2_comes_to_an_h100_as_was_measured_or_a_little_sooner(
    history: int, tokens: int, direct_ms: float, kernel_ms: float
) -> None:
    """docs/gpu.md, a long history's first token: how bus and computing hinder each other is not
    simulated, and explains what is missing."""
    costs = profile_of(find_device("h100"), read_model("llama-3.1-8b"))
    turns = [
        prompt(0, history, output_length=1),
        prompt(1, 20480, chat=5, output_length=1, at_s=60.0),  # takes L1
        prompt(2, history + tokens, chat=0, output_length=1, at_s=120.0),
    ]
    last = simulate(timed(*turns), costs, l1_pages=1280, l2_pages=4000).served[2]
    assert last.found.host == history
    assert 0.9 * direct_ms < 1000 * last.compute_s < 1.02 * direct_ms
    assert 0.75 * kernel_ms < 1000 * last.compute_s


def test_an_8b_prompt_and_its_answer_on_an_h100_take_what_a_pencil_says() -> None:
    costs = profile_of(find_device("h100"), read_model("llama-3.1-8b"))
    (one,) = simulate(
        timed(prompt(0, 4096, output_length=101)), costs, network_gbps=100.0, l2_pages=300
    ).served
    # 13.96 GFLOP a token at 494.5 TFLOP/s, two chunks of 2,048: 57.8 ms each; 524,288 FLOP a pair:
    # 2.2 and 6.7 ms; 128 KiB of context a token at 218 GB/s: 1.2 and 2.5 ms; one of 32 layers of
    # the second chunk behind them at 12.5 GB/s: 0.67 ms; one question to L3 before: 1 ms
    parts = (57.8, 57.8, 2.2, 6.7, 1.2, 2.5, 0.67, 1.0)
    assert 1000 * one.ttft_s == pytest.approx(sum(parts), rel=2e-3)
    # the floor, and 4,145 tokens of 128 KiB at 2.345 TB/s
    assert 1000 * (one.tpot_s or 0) == pytest.approx(17 + 0.2317, rel=1e-3)


def test_what_decode_holds_is_not_sent_though_prefill_computes_it_again() -> None:
    # prefill's tiers and L3 have hardly room for one prompt: of the first a page is left
    turns = [prompt(0, 320), prompt(1, 320, at_s=10.0), prompt(2, 336, chat=0, at_s=20.0)]
    sizes = {"l1_pages": 21, "l2_pages": 21, "l3_gib": 21 * 16_000 / 2**30, "offloads": False}
    ran = simulate(timed(*turns), **sizes)
    assert ran.served[2].found.computed == 320
    assert ran.use.sent_bytes - ran.use.l3_write_bytes == (320 + 320 + 16) * 1000


def test_prefill_and_decode_on_one_device_slow_each_other_down() -> None:
    load = timed(prompt(0, 50, output_length=101), prompt(1, 500, at_s=0.1))
    apart = simulate(load).served
    together = simulate(load, profile(prefill_slowdown=1.0, decode_slowdown=1.0)).served
    assert together[1].compute_s == near(2 * apart[1].compute_s)
    assert together[0].e2e_s > 1.3 * apart[0].e2e_s


def test_use_says_how_busy_each_part_was() -> None:
    ran = simulate(timed(prompt(0, 100)))
    assert ran.duration_s == near(0.2)
    assert (ran.use.prefill, ran.use.decode) == (near(0.5), near(0.5))
    assert ran.use.mean_batch == near(1.0)
    # six pages to L2 and to L3, and 100 tokens to decode
    assert ran.use.pcie_down_bytes == ran.use.l3_write_bytes == 6 * 16_000
    assert ran.use.sent_bytes == 100_000 + 6 * 16_000


@pytest.mark.parametrize(
    ("sizes", "flag"),
    [
        ({"l1_pages": 5}, "--l1-gib or --l1-pages: 5 pages"),
        ({"l1_gib": 1e-5}, "--l1-gib or --l1-pages: 0 pages"),
        ({"l2_pages": 5}, "--l2-gib or --l2-pages"),
        ({"l2_gib": 1e-5}, "--l2-gib or --l2-pages"),
        ({"l3_gib": 1e-5}, "--l3-gib"),
    ],
)
def test_a_pool_smaller_than_one_request_is_refused_by_its_flag(
    sizes: dict[str, float], flag: str
) -> None:
    with pytest.raises(ConfigError, match=flag) as caught:
        simulate(timed(prompt(0, 100)), **sizes)
    assert "the longest request needs 7" in str(caught.value)


def test_a_decode_pool_smaller_than_one_request_is_refused_too() -> None:
    costs = replace(profile(), memory_bytes=5 * 16_000.0)
    with pytest.raises(ConfigError, match="--device-gib"):
        simulate(timed(prompt(0, 100)), costs, l1_pages=20, l2_pages=20)


def test_pages_and_gib_of_a_tier_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="--l2-pages and --l2-gib"):
        simulate(timed(prompt(0, 100)), l2_pages=50, l2_gib=1.0)


def test_equal_loads_give_equal_results() -> None:
    load = timed(*(prompt(n, 100 + 7 * n, chat=n % 3, at_s=0.01 * n) for n in range(30)))
    assert simulate(load, prefill=2, decode=2) == simulate(load, prefill=2, decode=2)


def test_a_later_turn_goes_to_the_node_that_holds_its_history() -> None:
    chats = [prompt(n, 320, at_s=0.0) for n in range(2)]
    turns = [prompt(2 + n, 640, chat=n, at_s=100.0 + 50 * n, conversation=n) for n in (1, 0)]
    turns = [replace(turn, number=2 + place) for place, turn in enumerate(turns)]
    served = simulate(timed(*chats, *turns), prefill=2, decode=2).served
    homes = {one.conversation: (one.prefill, one.decode) for one in served[:2]}
    assert len(set(homes.values())) == 2
    for one in served[2:]:
        assert (one.prefill, one.decode) == homes[one.conversation]
        assert one.found.device > 0

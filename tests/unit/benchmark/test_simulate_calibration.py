"""A device's costs from measured runs, and runs beside their simulation."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from simulated import PAGE, config, profile, prompt, report, sample, simulate, timed

from kvloop.benchmark.results.document import Report, SegmentResult
from kvloop.benchmark.simulate.calibrate import LEAST_SAMPLES, calibrate
from kvloop.benchmark.simulate.check import check
from kvloop.benchmark.simulate.cluster import Cluster, Run
from kvloop.benchmark.simulate.least_squares import fit_costs
from kvloop.benchmark.simulate.measured import services, streams
from kvloop.benchmark.simulate.profile import Profile
from kvloop.benchmark.simulate.prompt import Load, Prompt
from kvloop.benchmark.simulate.report_load import report_load
from kvloop.shared_cache.errors import ConfigError

TRUE = profile(
    prefill_request_s=0.05,
    prefill_token_s=0.004,
    prefill_pair_s=2e-6,
    decode_step_s=0.03,
    decode_sequence_s=0.005,
    memory_bytes=1e9,
)


def chats(seed: int, num: int, turns: int, clients: int) -> Load:
    """Conversations that lengthen by drawn amounts; the next begins when one has ended."""
    rng = random.Random(seed)
    prompts: list[Prompt] = []
    last: list[int] = []
    for chat in range(num):
        length = 0
        for turn in range(1, turns + 1):
            length += rng.randint(100, 400)
            follows = len(prompts) - 1 if turn > 1 else None
            if turn == 1 and chat >= clients:
                follows = last[chat - clients]
            output = rng.randint(16, 40)
            prompts.append(
                prompt(
                    len(prompts),
                    length,
                    chat=chat,
                    turn=turn,
                    output_length=output,
                    follows=follows,
                    delay_s=0.01,
                )
            )
            length += output
        last.append(len(prompts) - 1)
    return timed(*prompts)


def measured(load: Load, costs: Profile = TRUE) -> Run:
    return simulate(load, costs)


def calibrated(run: Run, base: Profile | None = None) -> tuple[Profile, str]:
    made = report([sample(one) for one in run.served])
    return calibrate(made, base or profile(memory_bytes=1e9), config(), PAGE)


def test_costs_that_made_the_times_are_found_again() -> None:
    rng = random.Random(3)
    rows = [(1.0, rng.uniform(10, 500), rng.uniform(0, 1e5)) for _ in range(60)]
    times = [0.1 * a + 0.003 * b + 2e-6 * c for a, b, c in rows]
    assert fit_costs(rows, times) == pytest.approx([0.1, 0.003, 2e-6], rel=1e-3)


def test_odd_times_pull_the_fit_only_a_little() -> None:
    rows = [(1.0, float(tokens)) for tokens in range(50, 550, 10)]
    times = [0.1 + 0.003 * tokens for _, tokens in rows]
    times[::10] = [10 * time for time in times[::10]]
    assert fit_costs(rows, times) == pytest.approx([0.1, 0.003], rel=0.2)


def test_no_cost_is_negative() -> None:
    rows = [(1.0, float(tokens), float(tokens % 7)) for tokens in range(50, 550, 10)]
    times = [0.003 * tokens - 0.001 * odd for _, tokens, odd in rows]
    assert min(fit_costs(rows, times)) >= 0


def test_waiting_for_others_is_no_service() -> None:
    run = measured(timed(prompt(0, 200), prompt(1, 300)))
    busy = services([sample(one) for one in run.served])
    assert [one.seconds for one in busy] == [
        pytest.approx(one.compute_s, rel=0.01) for one in run.served
    ]
    assert [one.computed for one in busy] == [200, 300]
    assert busy[1].pairs == 300 * 150
    # the first one's answer took 10 steps of 35 ms of the second one's time
    assert busy[1].decode_share == pytest.approx(0.35 / run.served[1].compute_s, rel=0.05)


def test_prompts_of_one_step_are_one_service() -> None:
    load = timed(*(prompt(number, 60, output_length=1) for number in range(4)))
    run = measured(load, profile(prefill_floor_s=0.5))
    busy = services([sample(one) for one in run.served])
    assert [(one.num, one.computed) for one in busy] == [(1, 60), (3, 180)]


def test_streams_say_who_grew_beside_them() -> None:
    run = measured(timed(prompt(0, 100), prompt(1, 40)))
    samples = [sample(one) for one in run.served]
    first, second = streams(samples, services(samples))
    assert 1 < first.batch < 2 and 1 < second.batch < 2
    assert 0.5 < first.prefill_share < 1.0 and second.prefill_share == 0.0
    assert 100 < first.context < 160


def test_a_run_is_simulated_as_it_was_measured() -> None:
    run = measured(chats(1, 6, 4, 2))
    again = report_load(report([sample(one) for one in run.served]), PAGE)
    simulated = Cluster(config(), TRUE, again).run()
    for one, other in zip(run.served, sorted(simulated.served, key=place), strict=False):
        assert (one.conversation, one.turn) == (other.conversation, other.turn)
        assert one.found == other.found
        assert other.at_s == pytest.approx(one.at_s, abs=1e-6)
        assert other.ttft_s == pytest.approx(one.ttft_s, abs=1e-6)


def starts(made: Report, costs: Profile) -> list[float]:
    """When each request was sent in the simulation, by its number."""
    return [one.at_s for one in Cluster(config(), costs, report_load(made, PAGE)).run().served]


def test_a_slower_device_delays_a_closed_loop_and_not_one_with_a_rate() -> None:
    run = measured(timed(*(prompt(n, 100, at_s=2.0 * n) for n in range(4))))
    closed = report([sample(one) for one in run.served])
    rate = SegmentResult(arm="on", step=0, round=0, rate=0.5, began_at=0.0, ended_at=9.0)
    slow = replace(TRUE, prefill_token_s=0.1)
    assert starts(replace(closed, segments=(rate,)), slow) == pytest.approx([0.0, 2.0, 4.0, 6.0])
    assert starts(closed, slow)[3] > 20.0


def test_turns_of_a_trace_come_when_they_are_due_but_not_before_the_answer() -> None:
    turns = [prompt(n, 100 * n, chat=0, turn=n, at_s=4.0 * (n - 1)) for n in (1, 2, 3)]
    samples = [sample(one) for one in measured(timed(*turns)).served]
    samples[2] = replace(samples[2], sent_at=9.0, ended_at=samples[2].ended_at + 1.0, late_s=1.0)
    made = replace(report(samples), workload={"kind": "trace"})
    assert starts(made, TRUE) == pytest.approx([0.0, 4.0, 8.0])
    slow = starts(made, replace(TRUE, prefill_token_s=0.1))
    assert slow[1] > 10.0 and slow[2] > slow[1] + 10.0


def test_each_rate_of_a_sweep_begins_with_a_cold_cache() -> None:
    run = measured(timed(prompt(0, 320), prompt(1, 320, chat=0, at_s=50.0)))
    samples = [replace(sample(one), conversation=0, turn=1) for one in run.served]
    apart = [replace(one, step=step, cached_tokens=0) for step, one in enumerate(samples)]
    first, second = report_load(report(apart), PAGE).prompts
    assert not set(first.pages) & set(second.pages)


def test_only_what_a_turn_repeats_of_the_one_before_is_found_again() -> None:
    samples = [sample(one) for one in measured(chats(1, 6, 3, 2)).served]
    turns = [replace(one, reusable_tokens=min(one.reusable_tokens, 64)) for one in samples]
    made = report(turns)
    served = Cluster(config(), TRUE, report_load(made, PAGE)).run().served
    cached = {one.prompt_tokens - one.found.computed for one in served if one.turn > 1}
    assert cached == {64}


def place(one: object) -> tuple[int, int]:
    return one.conversation, one.turn  # type: ignore[attr-defined]


def test_a_profile_calibrated_on_one_run_foretells_another() -> None:
    fitted, words = calibrated(measured(chats(1, 8, 5, 3)))
    assert fitted.prefill_token_s == pytest.approx(TRUE.prefill_token_s, rel=0.25)
    assert fitted.prefill_slowdown < 0.3 and fitted.decode_slowdown < 0.3
    assert "calibrated on 40 requests" in words and "WARNING" not in words
    other = measured(chats(2, 6, 6, 2))
    made = report([sample(one) for one in other.served])
    comparison = check(
        made, Cluster(config(), fitted, report_load(made, PAGE)).run(), tolerance=0.1
    )
    assert comparison.is_close
    everything = comparison.rows[0]
    assert everything.tpot is not None and everything.tpot.ratio == pytest.approx(1, abs=0.15)
    assert everything.simulated_hit_rate == pytest.approx(everything.measured_hit_rate or 0)
    assert [rows.turn for rows in comparison.rows] == [None, 1, 2, 3, 4, 5, 6]


def test_what_a_token_of_l3_costs_is_fitted_too() -> None:
    # each chat's second turn finds its history in L3 alone: L1 and L2 hold hardly one prompt
    prompts = [prompt(n, 320, at_s=20.0 * n) for n in range(12)]
    prompts += [prompt(12 + n, 336, chat=n, turn=2, at_s=1000 + 20.0 * n) for n in range(12)]
    sizes = {"l1_pages": 22, "l2_pages": 44, "prefetch_policy": "wait_complete", "decode": 1}
    costs = profile(fetch_token_s=0.002, memory_bytes=22 * 16_000.0 + 8000, max_running=1)
    run = Cluster(config(**sizes), costs, timed(*prompts)).run()
    samples = [sample(one) for one in run.served]
    assert sum(one.sources.storage for one in samples if one.sources) > 1000
    fitted, _ = calibrate(report(samples), replace(costs, fetch_token_s=0.0), config(**sizes), PAGE)
    assert fitted.fetch_token_s == pytest.approx(0.002, rel=0.3)


def test_what_the_fit_of_single_steps_misses_is_scaled_away() -> None:
    # half of all prompts, and of all answers, met other work on the machine
    samples = []
    for number, one in enumerate(measured(chats(1, 24, 1, 1)).served):
        made, slow = sample(one), 1.0 if number % 2 else 2.6
        ttft_s, rest_s = made.ttft_s * slow, (made.e2e_s - made.ttft_s) * slow
        at_s = 100.0 * number
        samples.append(replace(made, sent_at=at_s, ttft_s=ttft_s, ended_at=at_s + ttft_s + rest_s))
    made = report(samples)
    fitted, _ = calibrate(made, profile(memory_bytes=1e9), config(), PAGE)
    rows = check(made, Cluster(config(), fitted, report_load(made, PAGE)).run(), 0.25).rows[0]
    assert rows.ttft.ratio == pytest.approx(1, abs=0.02)
    assert rows.tpot is not None and rows.tpot.ratio == pytest.approx(1, abs=0.02)


def test_prefill_and_decode_on_one_device_are_seen_to_slow_each_other() -> None:
    shared = replace(TRUE, prefill_slowdown=1.0, decode_slowdown=0.8)
    fitted, words = calibrated(measured(chats(1, 8, 5, 3), shared))
    assert fitted.prefill_slowdown > 0.5
    assert "while the other computes" in words


def test_a_run_on_a_machine_that_was_not_quiet_is_called_so() -> None:
    rng = random.Random(5)
    run = measured(chats(1, 12, 1, 1))
    noisy = [
        replace(sample(one), ttft_s=one.ttft_s * rng.choice([0.1, 0.3, 1.0, 1.9]))
        for one in run.served
    ]
    _, words = calibrate(report(noisy), TRUE, config(), PAGE)
    assert "WARNING" in words


def test_a_miss_beyond_the_tolerance_is_said() -> None:
    run = measured(chats(1, 6, 4, 2))
    made = report([sample(one) for one in run.served])
    slower = replace(TRUE, prefill_token_s=2 * TRUE.prefill_token_s)
    comparison = check(made, Cluster(config(), slower, report_load(made, PAGE)).run(), 0.25)
    assert not comparison.is_close and comparison.rows[0].ttft.ratio > 1.25
    faster = replace(TRUE, prefill_token_s=TRUE.prefill_token_s / 2)
    comparison = check(made, Cluster(config(), faster, report_load(made, PAGE)).run(), 0.25)
    assert not comparison.is_close and comparison.rows[0].ttft.ratio < 0.75


def test_tiers_are_counted_as_the_nodes_report_them() -> None:
    run = measured(chats(1, 6, 4, 2))
    made = report([sample(one) for one in run.served])
    comparison = check(made, run, 0.25)
    for share in comparison.tiers:
        assert share.measured == pytest.approx(share.simulated)
    assert sum(share.simulated for share in comparison.tiers) == pytest.approx(1)
    unknown = report([replace(one, sources=None, cached_tokens=None) for one in made.samples])
    blind = check(unknown, run, 0.25)
    assert {share.measured for share in blind.tiers} == {None}
    assert blind.rows[0].measured_hit_rate is None


def test_only_the_arm_on_is_simulated() -> None:
    run = measured(chats(1, 6, 4, 2))
    samples = [sample(one) for one in run.served]
    others = [replace(one, arm="bypassed", ttft_s=99.0) for one in samples]
    assert len(report_load(report([*samples, *others]), PAGE).prompts) == len(samples)
    with pytest.raises(ConfigError, match="no samples of the arm 'on'"):
        report_load(report(others), PAGE)


def test_a_run_whose_conversations_share_beginnings_is_refused() -> None:
    run = measured(chats(1, 6, 4, 2))
    samples = [
        replace(sample(one), cached_tokens=80) if one.turn == 1 else sample(one)
        for one in run.served
    ]
    with pytest.raises(ConfigError, match="--system-prompts"):
        report_load(report(samples), PAGE)


def test_a_run_that_shows_too_little_is_refused() -> None:
    run = measured(chats(1, 2, 2, 2))
    with pytest.raises(ConfigError, match=f"give a run of {LEAST_SAMPLES}"):
        calibrated(run)
    samples = [sample(one) for one in measured(chats(1, 6, 4, 2)).served]
    with pytest.raises(ConfigError, match="one prefill and one decode node"):
        calibrate(report(samples), TRUE, config(prefill=2), PAGE)

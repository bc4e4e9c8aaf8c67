"""Sweeps: every combination, and the cheapest that is good enough."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from simulated import prompt, simulate, timed

from kvloop.benchmark.simulate.config import ClusterConfig
from kvloop.benchmark.simulate.result import (
    Objective,
    SimulationResult,
    cheapest,
    make_result,
)
from kvloop.benchmark.simulate.sweep import MOST, SWEPT, parse_sweep
from kvloop.benchmark.simulate.tables import show_run, show_sweep
from kvloop.shared_cache.errors import ConfigError

EXAMPLES: dict[str, Any] = {
    "prefill": 3,
    "decode": 3,
    "l1-pages": 100,
    "l2-pages": 100,
    "l1-gib": 1.5,
    "l2-gib": 1.5,
    "l3-gib": 1.5,
    "network-gbps": 1.5,
    "l3-gbps": 1.5,
    "write-policy": "write_back",
    "eviction-policy": "slru",
    "prefetch-policy": "timeout",
}


def result(prefill: int, objective: Objective, **options: Any) -> SimulationResult:
    load = timed(*(prompt(number, 200) for number in range(6)))
    run = simulate(load, prefill=prefill)
    return make_result(
        run,
        objective=objective,
        prefill=prefill,
        decode=1,
        settings={"prefill": prefill},
        **options,
    )


def test_no_sweep_is_one_setting_that_changes_nothing() -> None:
    (only,) = parse_sweep([])
    assert only.apply(ClusterConfig()) == ClusterConfig() and only.time_scale is None


def test_all_combinations_are_tried() -> None:
    settings = parse_sweep(["prefill=1,2", "decode=1,2,4"])
    pairs = [(setting.values["prefill"], setting.values["decode"]) for setting in settings]
    assert pairs == [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4)]


@pytest.mark.parametrize("name", [name for name in SWEPT if name != "time-scale"])
def test_each_name_sets_its_field(name: str) -> None:
    (setting,) = parse_sweep([f"{name}={EXAMPLES[name]}"])
    assert getattr(setting.apply(ClusterConfig()), name.replace("-", "_")) == EXAMPLES[name]


def test_the_time_scale_is_swept_too() -> None:
    assert [setting.time_scale for setting in parse_sweep(["time-scale=0.5,2"])] == [0.5, 2.0]


def test_a_size_takes_the_place_of_the_same_size_in_the_other_unit() -> None:
    (setting,) = parse_sweep(["l2-gib=2"])
    applied = setting.apply(ClusterConfig(l2_pages=7))
    assert (applied.l2_pages, applied.l2_gib) == (None, 2.0)


def test_an_unbounded_l3_can_be_one_of_the_values() -> None:
    values = [setting.values["l3-gib"] for setting in parse_sweep(["l3-gib=64,unbounded"])]
    assert values == [64.0, None]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["l4=1"], "must be NAME=V1,V2 with one of prefill"),
        (["prefill"], "must be NAME=V1,V2"),
        (["prefill=1,x"], "'x' is no whole number above 0"),
        (["prefill=0"], "no whole number above 0"),
        (["l2-gib=-1"], "no number above 0"),
        (["l2-gib=inf"], "no number above 0"),
        (["write-policy=never"], "none of write_through"),
        (["prefill=1", "prefill=2"], "given twice"),
        (["prefill=" + ",".join("1" * (MOST + 1))], f"at most {MOST}"),
    ],
)
def test_a_wrong_sweep_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_sweep(texts)


def test_an_objective_counts_who_met_it() -> None:
    # one prefill node: first tokens at 0.2, 0.4, ... 1.2 s
    tried = result(1, Objective(ttft_ms=700, share=0.5))
    assert (tried.met, tried.met_share, tried.is_good) == (3, 0.5, True)
    assert not result(1, Objective(ttft_ms=700, share=0.6)).is_good
    assert result(1, Objective(tpot_ms=5)).met == 0
    assert result(1, Objective(tpot_ms=11)).met == 6
    assert result(1, Objective()).met == 6


def test_the_cheapest_that_is_good_enough_is_named() -> None:
    objective = Objective(ttft_ms=650, share=0.9)
    tried = [result(num, objective, gpu_hour_price=3.0) for num in (1, 2, 3)]
    best = cheapest(tried)
    assert best is tried[1]
    assert best.devices == 3 and best.price_per_hour == 9.0
    assert best.price_per_1000_requests == pytest.approx(9 * best.duration_s / 3600 / 6 * 1000)
    assert cheapest(tried[:1]) is None


def test_devices_of_a_node_are_paid_each() -> None:
    tried = result(2, Objective(), devices_per_node=4, gpu_hour_price=2.0)
    assert tried.devices == 12 and tried.price_per_hour == 24.0


def test_a_run_is_shown_with_tiers_times_and_use() -> None:
    console = Console(width=100, record=True)
    objective = Objective(ttft_ms=700)
    show_run(result(1, objective, gpu_hour_price=3.0), objective, console)
    text = console.export_text()
    for words in (
        "hit rate",
        "L2 (host)",
        "waits for prefill",
        "bus L2 to L1",
        "3 of 6 (50.0%) meet TTFT 700 ms",
        "2 devices cost $6.00 an hour",
    ):
        assert words in text


def test_a_sweep_is_shown_with_its_advice() -> None:
    objective = Objective(ttft_ms=650, share=0.9)
    tried = [result(num, objective, gpu_hour_price=3.0) for num in (1, 2)]
    console = Console(width=160, record=True)
    show_sweep(tried, objective, console)
    assert "cheapest with TTFT 650 ms for 90% of requests: prefill 2 (3 devices, $9.00" in (
        console.export_text()
    )
    show_sweep(tried[:1], objective, console)
    assert "none of these meets" in console.export_text()


def test_no_cluster_is_cheaper_for_serving_a_slower_load() -> None:
    objective = Objective(ttft_ms=650, share=0.9)
    few, enough = (result(num, objective) for num in (1, 2))
    tried = [
        replace(enough, settings={"prefill": 2, "time-scale": 1.0}),
        replace(enough, devices=2, settings={"prefill": 1, "time-scale": 0.5}),
        replace(few, settings={"prefill": 1, "time-scale": 9.0}),
    ]
    console = Console(width=160, record=True)
    show_sweep(tried, objective, console)
    text = console.export_text()
    assert "prefill 2, time-scale 1.0 (3 devices)" in text
    assert "prefill 1, time-scale 0.5 (2 devices)" in text
    assert "none of these meets TTFT 650 ms for 90% of requests at time-scale 9.0" in text


def test_a_sweep_without_a_wish_or_a_price_shows_neither() -> None:
    console = Console(width=160, record=True)
    tried = replace(result(1, Objective()), settings={"l3-gib": None})
    show_sweep([tried], Objective(), console)
    text = console.export_text()
    assert "unbounded" in text and "met" not in text and "$" not in text

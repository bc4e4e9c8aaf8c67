"""Autoscaling in a closed loop with simulated queues: what it does over hours of load."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scaled_queue import LOOK_S, Decode, Prefill, Scaled

from kvloop.operator.types.pd_cluster import Autoscaling

HOUR = int(3600 / LOOK_S)


def scaled(**fields: Any) -> Scaled:
    given = {
        "prefill": {"minReplicas": 1, "maxReplicas": 16},
        "decode": {"minReplicas": 1, "maxReplicas": 16},
        "objectives": {"queueSeconds": 0.5, "tpotMilliseconds": 40},
        "scaleDownSeconds": 120,
        **fields,
    }
    return Scaled(autoscaling=Autoscaling.model_validate(given))


def num_changes(loop: Scaled, last: int) -> int:
    return sum(before != after for before, after in pairwise(loop.history[-last:]))


@pytest.mark.parametrize("rate", [0.5, 1.5, 3.0, 7.0, 20.0])
def test_a_constant_load_is_served_within_the_objective_and_then_nothing_changes(
    rate: float,
) -> None:
    loop = scaled()
    loop.run(2 * HOUR, lambda _: rate)
    assert num_changes(loop, HOUR) == 0, loop.changes
    assert max(loop.waits[-HOUR:]) <= 0.5 * 1.1
    needed = rate * loop.prefill.seconds_each
    assert loop.replicas["prefill"] <= 2 * needed / 0.75 + 1, "not many more than are filled"


def test_a_burst_is_met_within_minutes_and_its_nodes_go_after_the_quiet_time() -> None:
    loop = scaled()
    loop.run(60, lambda _: 1.0)
    calm = dict(loop.replicas)
    loop.run(60, lambda _: 12.0)
    assert loop.replicas["prefill"] >= 7 and loop.waits[-1] <= 0.55
    loop.run(12, lambda _: 1.0)
    assert loop.replicas["prefill"] >= 7, "not before the quiet time"
    loop.run(HOUR, lambda _: 1.0)
    assert loop.replicas["prefill"] <= calm["prefill"] + 1


def test_a_load_that_swings_each_minute_is_not_followed_down() -> None:
    loop = scaled()
    loop.run(2 * HOUR, lambda seconds: 8.0 if seconds % 60 < 30 else 0.5)
    assert num_changes(loop, HOUR) == 0, loop.changes


def test_decode_follows_the_time_between_tokens() -> None:
    loop = scaled()
    loop.run(HOUR, lambda _: 30.0)
    assert loop.decode.itl_s <= 0.04 * 1.1 and loop.replicas["decode"] > 1
    loop.run(HOUR, lambda _: 0.0)
    assert loop.replicas == {"prefill": 1, "decode": 1}


def test_keep_ratio_follows_a_shift_from_long_prompts_to_long_answers() -> None:
    loop = scaled(keepRatio=True, scaleDownSeconds=1800)
    loop.run(HOUR, lambda _: 10.0)
    assert loop.replicas["prefill"] >= 6
    loop.prefill = Prefill(seconds_each=0.02)
    loop.decode = Decode(tokens=150.0)
    total = sum(loop.replicas.values())
    loop.run(60, lambda _: 10.0)
    assert any("decode needs them more" in change for change in loop.changes)
    assert sum(loop.replicas.values()) <= total + 2
    assert loop.decode.itl_s <= 0.04 * 1.1


@given(
    rate=st.floats(0, 25),
    seconds_each=st.floats(0.02, 1.0),
    tokens=st.floats(5, 300),
    queue_s=st.floats(0.05, 5),
    tpot=st.integers(25, 200),
    start=st.integers(1, 16),
    keep=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_no_constant_load_makes_nodes_come_and_go(
    rate: float,
    seconds_each: float,
    tokens: float,
    queue_s: float,
    tpot: int,
    start: int,
    keep: bool,
) -> None:
    objectives = {"queueSeconds": queue_s, "tpotMilliseconds": tpot}
    loop = scaled(objectives=objectives, keepRatio=keep)
    loop.prefill, loop.decode = Prefill(seconds_each=seconds_each), Decode(tokens=tokens)
    loop.replicas = {"prefill": start, "decode": start}
    loop.run(2 * HOUR, lambda _: rate)
    # A load a hair above what the nodes can do takes its time to be seen: one more may come.
    assert num_changes(loop, HOUR) <= 1, loop.changes[-8:]
    for before, after in pairwise(loop.history[-HOUR:]):
        assert all(before[role] <= after[role] for role in before), loop.changes[-8:]

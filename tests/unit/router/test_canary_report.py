from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kvloop.router.canary.metrics import CanaryMetrics
from kvloop.router.canary.report import (
    Report,
    StageReport,
    State,
    broken_stage,
    merge,
    result_of,
    same,
)


def stages(*states: State, seconds: float = 1.0) -> tuple[StageReport, ...]:
    names: Any = ("transfer", "write_back", "reuse")
    return tuple(
        StageReport(stage=name, state=state, seconds=seconds)
        for name, state in zip(names, states, strict=True)
    )


def test_a_stage_is_as_the_pair_has_it_that_is_worst_off() -> None:
    merged = merge(
        [
            stages("ok", "ok", "ok"),
            stages("ok", "failed", "skipped"),
            stages("unknown", "ok", "ok"),
        ]
    )
    assert [one.state for one in merged] == ["unknown", "failed", "skipped"]


def test_of_pairs_that_are_equal_the_slowest_is_shown() -> None:
    merged = merge([stages("ok", "ok", "ok"), stages("ok", "ok", "ok", seconds=3.0)])
    assert [one.seconds for one in merged] == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("states", "result", "broken"),
    [
        (("ok", "ok", "ok"), "whole", None),
        (("ok", "failed", "skipped"), "broken", "write_back"),
        (("unknown", "ok", "failed"), "broken", "reuse"),
        (("unknown", "ok", "ok"), "unknown", None),
        (("ok", "ok", "skipped"), "unknown", None),
    ],
)
def test_only_what_was_seen_to_be_ok_is_whole(states: Any, result: str, broken: str | None) -> None:
    assert (result_of(stages(*states)), broken_stage(stages(*states))) == (result, broken)


def test_metrics_show_each_stage_in_one_state_and_count_results() -> None:
    registry = CollectorRegistry()
    metrics = CanaryMetrics(registry)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("kvloop_canary_stage", stage="reuse", state="unknown") == 1
    assert value("kvloop_canary_runs_total", result="whole") == 0
    assert value("kvloop_canary_last_run_timestamp_seconds") == 0
    found = stages("ok", "failed", "skipped", seconds=2.5)
    metrics.take(
        Report(
            result="broken",
            broken_stage="write_back",
            stages=found,
            pairs=(),
            trigger="demand",
            started_at=1.0,
            seconds=3.0,
        )
    )
    assert value("kvloop_canary_stage", stage="transfer", state="ok") == 1
    assert value("kvloop_canary_stage", stage="write_back", state="failed") == 1
    assert value("kvloop_canary_stage", stage="write_back", state="unknown") == 0
    assert value("kvloop_canary_stage_seconds", stage="write_back") == 2.5
    assert value("kvloop_canary_runs_total", result="broken") == 1
    assert (value("kvloop_canary_last_run_timestamp_seconds") or 0) > 1.7e9


def test_stages_in_one_state_share_their_reason() -> None:
    assert [(s.stage, s.reason) for s in same("unknown", "why")] == [
        ("transfer", "why"),
        ("write_back", "why"),
        ("reuse", "why"),
    ]

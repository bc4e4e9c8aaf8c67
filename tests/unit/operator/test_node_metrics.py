"""What is read of a Prometheus text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client import Histogram as Observed

from kvloop.operator.nodes.metrics import (
    Histogram,
    PromptTokens,
    parse_metrics,
    prompt_tokens,
)

BOUNDS = (0.1, 0.5, 1.0, 5.0)


def observed(*values: float) -> Histogram:
    registry = CollectorRegistry()
    histogram = Observed("wait_seconds", "Wait", buckets=BOUNDS, registry=registry)
    for value in values:
        histogram.observe(value)
    return parse_metrics(generate_latest(registry).decode()).histogram("wait_seconds")


def test_a_histogram_has_count_mean_and_quantiles() -> None:
    found = observed(0.2, 0.3, 0.7, 3.0)
    assert found.count == 4 and found.mean == pytest.approx(1.05)
    assert found.quantile(0.5) == pytest.approx(0.5)
    assert found.quantile(0.75) == pytest.approx(1.0)


def test_beyond_the_last_bound_nothing_is_made_up() -> None:
    assert observed(100.0).quantile(0.5) == 5.0


def test_an_empty_histogram_has_no_mean_and_no_median() -> None:
    assert observed().mean is None and observed().quantile(0.5) is None
    assert parse_metrics("").histogram("wait_seconds") == Histogram()


@given(st.lists(st.floats(0, 10), max_size=20), st.lists(st.floats(0, 10), max_size=20))
def test_a_window_is_what_came_after_an_earlier_look(old: list[float], new: list[float]) -> None:
    window = observed(*old, *new).since(observed(*old))
    assert window.buckets == observed(*new).buckets
    assert window.total == pytest.approx(sum(new))


def test_after_a_restart_all_is_new() -> None:
    assert observed(0.2).since(observed(0.1, 0.2)) == observed(0.2)


def test_two_processes_are_summed() -> None:
    assert observed(0.2, 3.0).plus(observed(0.7)) == observed(0.2, 3.0, 0.7)
    assert Histogram().plus(observed(0.7)) == observed(0.7) == observed(0.7).plus(Histogram())


def test_samples_are_summed_by_labels() -> None:
    registry = CollectorRegistry()
    counter = Counter("kvloop_pages", "Pages", ["path", "result"], registry=registry)
    counter.labels("offload", "ok").inc(2)
    counter.labels("offload", "failed").inc(3)
    samples = parse_metrics(generate_latest(registry).decode())
    assert samples.sum("kvloop_pages_total", path="offload") == 5
    assert samples.sum("kvloop_pages_total", path="offload", result="ok") == 2
    assert samples.sum("kvloop_pages_total", path="prefetch") is None
    assert samples.sum("unknown") is None


def test_prompt_tokens_give_the_share_that_was_not_computed() -> None:
    text = 'kvloop_prompt_tokens_total{source="%s"} %s\n'
    sources = {"computed": 25, "device": 10, "host": 20, "storage": 40, "transfer_skipped": 5}
    found = prompt_tokens(parse_metrics("".join(text % pair for pair in sources.items())))
    assert found == PromptTokens(**sources)
    assert found.hit_rate == pytest.approx(0.75)
    assert found.plus(found).storage == 80
    assert PromptTokens().hit_rate is None

"""The real trace: what is chosen of it reuses what its ids say."""

from __future__ import annotations

from typing import Any

import pytest
from whole_trace import EXCERPT, whole_trace

from kvloop.benchmark.workloads.excerpt import count_reuse
from kvloop.benchmark.workloads.plan import num_requests
from kvloop.benchmark.workloads.trace import Trace, TraceOptions, load_trace
from kvloop.benchmark.workloads.trace_lines import read_timed_trace


def load(**options: Any) -> Trace:
    return load_trace(TraceOptions(**{"trace": whole_trace(), "context": 8192, **options}))


def share(loaded: Trace) -> float:
    """Counted from what is sent, in the order in which it is due."""
    due = sorted((one.at_ms, one.pages) for group in loaded.requests for one in group)
    seen: set[int] = set()
    num_ids = num_seen = 0
    for _, pages in due:
        num_seen += len(seen.intersection(pages))
        num_ids += len(pages)
        seen.update(pages)
    return num_seen / num_ids


def test_the_whole_trace_reuses_a_good_third_of_its_ids() -> None:
    trace = read_timed_trace(whole_trace())
    assert len(trace.requests) == 12031 and not trace.problems.num
    assert count_reuse(trace.requests).share == pytest.approx(0.366, abs=0.0005)


def test_its_first_300_requests_reuse_little() -> None:
    loaded = load(limit=300, choose="first")
    assert num_requests(loaded) == 300
    assert share(loaded) == pytest.approx(0.08, abs=0.0005)
    assert loaded.describe()["ids_seen_before_share"] == pytest.approx(share(loaded), abs=0.0001)


@pytest.mark.parametrize("seed", range(2))
def test_300_chosen_by_conversation_reuse_enough_and_fit_the_model(seed: int) -> None:
    loaded = load(limit=300, seed=seed)
    assert num_requests(loaded) == 300
    assert share(loaded) >= 0.35
    assert loaded.ceiling.rate >= 0.35
    assert loaded.describe()["longest_with_answer"] <= 8192
    assert len(loaded.conversations) >= 100, (
        "conversations of many, not one of a few that reuse most"
    )


def test_an_excerpt_in_the_repository_can_be_replayed() -> None:
    loaded = load_trace(TraceOptions(trace=EXCERPT, context=2048, limit=40))
    assert num_requests(loaded) == 40 and share(loaded) >= 0.35

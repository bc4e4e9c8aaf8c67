"""The report counts everything once."""

import io
import json

from rich.console import Console

from kvloop.benchmark.report import Report, to_json
from kvloop.benchmark.sample import Failure, Sample, Sources
from kvloop.benchmark.tables import show
from kvloop.benchmark.workload import Workload


def answered(client: int, turn: int, cached: int = 0) -> Sample:
    return Sample(
        conversation=client,
        turn=turn,
        sent_at=0.0,
        ended_at=2.0,
        queued_s=0.25,
        ttft_s=0.5,
        itl_s=(0.1, 0.2),
        prompt_tokens=100 * turn,
        completion_tokens=3,
        reusable_tokens=100 * (turn - 1),
        cached_tokens=cached,
        sources=Sources(computed=100 * turn - cached, storage=cached, storage_by_decode=cached),
        fallback=None,
    )


REPORT = Report(
    workload=Workload(clients=2, turns=3, output_length=3),
    url="http://127.0.0.1:1",
    model="m",
    started_at="2026-01-01T00:00:00+00:00",
    duration_s=4.0,
    samples=(answered(0, 1), answered(0, 2, 96), answered(0, 3, 192), answered(1, 1)),
    failures=(Failure(conversation=1, turn=2, kind="http_503", message="no decode node is ready"),),
)


def text_of(report: Report) -> str:
    out = io.StringIO()
    show(report, Console(file=out, width=100))
    return out.getvalue()


def test_every_planned_request_is_completed_failed_or_not_sent() -> None:
    counts = to_json(REPORT)["requests"]
    assert counts["planned"] == counts["completed"] + counts["failed"] + counts["not_sent"] == 6
    assert counts["not_sent"] == 1


def test_rates_are_over_the_whole_time() -> None:
    rates = to_json(REPORT)["rates"]
    assert rates["requests_per_s"] == 1.0 and rates["output_tokens_per_s"] == 3.0


def test_later_turns_leave_the_first_out() -> None:
    assert REPORT.later_turns.requests == 2
    assert REPORT.later_turns.cached_tokens == 288


def test_the_document_is_json_and_has_each_turn_and_sample() -> None:
    document = json.loads(json.dumps(to_json(REPORT)))
    assert [turn["turn"] for turn in document["turns"]] == [1, 2, 3]
    assert len(document["samples"]) == 4


def test_a_failure_is_shown_with_its_kind_place_and_message() -> None:
    assert "1 failed: http_503; the first: client 1, turn 2: no decode node is ready" in text_of(
        REPORT
    )
    assert "1 not sent" in text_of(REPORT)


def test_a_cache_that_was_not_cold_is_pointed_out() -> None:
    warm = Report(
        workload=Workload(clients=1, turns=1, output_length=3),
        url="u",
        model="m",
        started_at="",
        duration_s=1.0,
        samples=(answered(0, 1, cached=64),),
        failures=(),
    )
    assert "turn 1 hit the cache" in text_of(warm)
    assert "turn 1 hit the cache" not in text_of(REPORT)

"""The report counts everything once, and can be read in a terminal."""

import io
from dataclasses import replace

import msgspec
import pytest
from bench_reports import make_report
from bench_runs import Load, MadeRun, conversations, failure, sample
from rich.console import Console

from kvloop.benchmark.node_seconds import SegmentSeconds
from kvloop.benchmark.results.document import ArmResult, Report
from kvloop.benchmark.results.goodput import Objectives
from kvloop.benchmark.results.tables import show
from kvloop.benchmark.sample import Sources
from kvloop.benchmark.workloads.plan import Ceiling

LOAD = Load(
    conversations=conversations(2, 3),
    ceiling=Ceiling(tokens=10, reusable_tokens=4, words="counted by hand"),
)
RUN = MadeRun(
    samples=[
        sample("on", 0, 1, ended_at=1.0),
        sample("on", 0, 2, prompt_tokens=300, cached_tokens=96, reusable_tokens=100),
        sample("on", 0, 3, prompt_tokens=500, cached_tokens=192, fallback="local_prefill"),
        sample("on", 1, 1, round=1, is_short=True),
        sample("bypassed", 0, 1, answer_digest="a"),
    ],
    failures=[failure("on", 1, 2, round=1), failure("bypassed", 1, 1, round=1, kind="connect")],
    load=LOAD,
    rounds=2,
)


def arm(report: Report, name: str = "on") -> ArmResult:
    (found,) = [each for each in report.arms if each.arm == name]
    return found


def text_of(report: Report, width: int = 100) -> str:
    out = io.StringIO()
    show(report, Console(file=out, width=width))
    return out.getvalue()


def test_every_planned_request_is_completed_failed_or_not_sent() -> None:
    counts = arm(RUN.report()).counts
    assert (counts.planned, counts.completed, counts.failed, counts.not_sent) == (6, 4, 1, 1)
    assert counts.short_answers == 1


def test_rates_are_over_the_seconds_in_which_the_arm_loaded_the_server() -> None:
    found = arm(RUN.report())
    assert found.seconds == 20.0
    assert found.rates.requests_per_s == 0.2
    assert found.rates.output_tokens_per_s == 0.6
    assert found.rates.prompt_tokens_per_s == 50.0


def test_later_turns_leave_the_first_out() -> None:
    found = arm(RUN.report())
    assert found.later_turns.requests == 2 and found.later_turns.cached_tokens == 288
    assert found.all.requests == 4
    assert [turn.turn for turn in found.turns] == [1, 2, 3]
    assert [(x.low, x.summary.requests) for x in found.lengths] == [(64, 2), (256, 2)]


def test_failures_and_fallbacks_are_counted_by_kind() -> None:
    report = RUN.report()
    assert arm(report).errors == {"http_503": 1} and arm(report).fallbacks == {"local_prefill": 1}
    assert arm(report, "bypassed").errors == {"connect": 1}


def test_the_ceiling_and_the_load_stand_in_the_report() -> None:
    report = RUN.report()
    assert report.ceiling is not None and report.ceiling.rate == 0.4
    assert report.workload == {
        "kind": "multi-turn",
        "content": "token-ids",
        "conversations": 2,
        "seed": 7,
    }


def test_a_sweep_has_a_result_for_each_step_and_arm() -> None:
    every = [sample(a, 0, 1, step=s) for a in ("on", "bypassed") for s in (0, 1)]  # type: ignore[arg-type]
    run = MadeRun(samples=every[1:], rates=(1.0, 4.0), load=Load(conversations=conversations(1, 1)))
    steps = run.report(objectives=Objectives(ttft_ms=600)).steps
    assert [(s.arm, s.step, s.rate) for s in steps] == [
        ("on", 0, 1.0),
        ("bypassed", 0, 1.0),
        ("on", 1, 4.0),
        ("bypassed", 1, 4.0),
    ]
    assert [s.counts.not_sent for s in steps] == [1, 0, 0, 0]
    assert steps[1].goodput is not None and steps[1].goodput.requests_per_s == 0.1
    assert steps[1].rates.requests_per_s == 0.1


def test_without_rates_there_are_no_steps() -> None:
    assert RUN.report().steps == ()


def test_objectives_price_and_node_seconds_reach_the_report() -> None:
    every = [sample(a, n, 1) for a in ("on", "bypassed") for n in range(5)]  # type: ignore[arg-type]
    run = MadeRun(samples=every, load=Load(conversations=conversations(5, 1)))
    spent = [
        SegmentSeconds(arm="on", step=0, round=0, seconds=1.0),
        SegmentSeconds(arm="bypassed", step=0, round=0, seconds=3.0),
    ]
    report = run.report(
        objectives=Objectives(ttft_ms=600), price_per_gpu_hour=1.8, node_seconds=spent
    )
    assert arm(report).goodput is not None
    assert report.savings is not None and report.savings.gpu_s == pytest.approx(2.0)
    assert report.savings.price_per_1000_requests == pytest.approx(0.2)
    assert {claim.name for claim in report.claims} >= {"ttft", "e2e", "output_rate"}


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"arms": ("on",), "fail_share": 0.2},
        {"fail_share": 1.0, "conversations": 5},
        {"rates": (2.0, 4.0), "arms": ("on", "all_miss")},
        {"has_sources": False, "has_hits": False},
    ],
)
def test_a_report_goes_to_json_and_back(shape: dict[str, object]) -> None:
    report = make_report(seed=3, **shape)
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_the_load_is_that_of_the_arm_that_answered_most() -> None:
    every = [sample("on", 0, 1), sample("on", 0, 2, reusable_tokens=50)]
    more = [sample("all_miss", 0, 1), sample("all_miss", 1, 1), sample("all_miss", 0, 2)]
    load = Load(conversations=conversations(2, 2))
    text = text_of(MadeRun(samples=[*every, *more], load=load).report())
    rows = [line.split() for line in text.splitlines()]
    assert ["1", "2", "200", "0.0%", "0.0%", "0.0%"] in rows
    assert ["all", "3", "300", "25.0%", "0.0%", "0.0%"] in rows


def test_a_failure_is_shown_with_its_kind_place_and_message() -> None:
    text = text_of(RUN.report())
    assert (
        "1 failed in arm on: http_503; the first: conversation 1, turn 2: no node is ready" in text
    )
    assert "1 not sent in arm on" in text and "4 not sent in arm bypassed" in text


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"rates": (2.0, 4.0), "arms": ("on", "bypassed")},
        {"has_sources": False, "has_hits": False, "arms": ("on", "all_miss")},
        {"fail_share": 1.0, "conversations": 5},
    ],
)
@pytest.mark.parametrize("width", [60, 80, 100])
def test_tables_fit_into_the_terminal_uncut(shape: dict[str, object], width: int) -> None:
    report = make_report(seed=1, **shape)
    lines = text_of(report, width).splitlines()[1:]
    tables = lines[: next(n for n, line in enumerate(lines) if " requests in " in line)]
    assert max(map(len, tables)) <= width
    assert not any("…" in line for line in tables)


def test_columns_without_room_go_on_below_beside_the_rows_names() -> None:
    heads = [line.split() for line in text_of(make_report(seed=1), 60).splitlines()]
    assert ["turn", "requests", "prompt", "tokens", "possible", "on", "bypassed"] in heads
    assert ["turn", "l3_only", "all_miss"] in heads


def test_each_step_of_a_sweep_is_a_row_with_its_arm_and_rate() -> None:
    text = text_of(make_report(seed=1, rates=(2.0, 4.0), arms=("on", "bypassed")))
    for words in ("on at 2/s", "bypassed at 2/s", "on at 4/s", "bypassed at 4/s"):
        assert words in text


def test_every_arm_is_shown_with_its_times_hits_and_tiers() -> None:
    text = text_of(make_report(seed=1))
    for words in (
        "latency of all turns",
        "cached share of prompt tokens",
        "TTFT by turn",
        "TTFT by prompt length",
        "arm on: where prompt tokens came from",
        "arm l3_only: where prompt tokens came from",
        "arm / control (95 %",
        "on / bypassed",
        "all_miss / bypassed",
    ):
        assert words in text
    assert "arm bypassed: where" not in text  # nothing came from anywhere


def test_the_claim_is_a_sentence_and_the_ceiling_stands_beside_the_hits() -> None:
    text = text_of(make_report(seed=1))
    assert "Later turns' first token comes " in text and "x sooner in the median (95 %:" in text
    assert "can be reused at most (every turn repeats its history); hit: on " in text
    assert "saved: " in text and " at 2.5 an hour; estimated from TTFT" in text
    assert "kept TTFT within 500 ms" in text
    assert "answers: 0 of 120 were not the same in every arm" in text


def test_what_reuse_lost_is_not_called_saved() -> None:
    report = make_report(seed=1)
    assert report.savings is not None
    savings = replace(report.savings, gpu_s=-6.0, low=-8.0, high=1.0, per_1000_requests_s=-50.0)
    (line,) = [
        line
        for line in text_of(replace(report, savings=savings)).splitlines()
        if " GPU seconds against " in line
    ]
    assert line.startswith(
        "lost: 6.0 GPU seconds against bypassed (95 %: -1.0 to 8.0; may be no difference); "
        "50.0 s a 1,000 requests"
    )


def test_waiting_for_a_place_among_those_in_flight_is_told() -> None:
    waited = MadeRun(samples=[sample(queued_s=0.25)]).report()
    assert "on: queued behind --max-in-flight, no part of TTFT: p50 250" in text_of(waited)
    assert "queued" not in text_of(RUN.report())


def test_the_drivers_verdict_is_told_once() -> None:
    fine, slow = (MadeRun(samples=[sample()], is_bottleneck=b).report() for b in (False, True))
    assert text_of(fine).count("It kept up") == 1
    assert text_of(slow).count("The driver was too slow") == 1


def test_an_output_rate_of_few_rounds_is_in_the_table_and_in_no_sentence() -> None:
    few = text_of(make_report(seed=1, rounds=2))
    many = text_of(make_report(seed=1, rounds=5))
    assert "output tokens/s" in few and "The server gives" not in few
    assert "The server gives" in many


def test_long_conversations_show_their_first_turns_and_say_how_many_more() -> None:
    every = [sample("on", 0, turn, sources=Sources(computed=1)) for turn in range(1, 31)]
    text = text_of(MadeRun(samples=every, load=Load(conversations=conversations(1, 30))).report())
    assert "(18 more)" in text


def test_warnings_are_shown_and_what_is_broken_stands_out() -> None:
    out = io.StringIO()
    every = [sample("on", 0, t, reusable_tokens=90 if t > 1 else 0) for t in (1, 2)]
    report = MadeRun(samples=every, load=Load(conversations=conversations(1))).report()
    show(report, Console(file=out, width=100, force_terminal=True, color_system="standard"))
    assert "\x1b[1;31m! NO REUSE: arm on hit nothing" in out.getvalue()


def test_words_of_a_server_are_no_markup() -> None:
    failed = MadeRun(failures=[failure("on", 0, 1, message="[/nonsense] [red]no[/red]")]).report()
    assert "[/nonsense] [red]no[/red]" in text_of(failed)

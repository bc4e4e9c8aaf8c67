"""The page's plots: what is drawn of which report."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from bench_reports import make_report

from kvloop.benchmark.page import units
from kvloop.benchmark.page.charts.by_turn import E2E, TTFT, Time, by_turn
from kvloop.benchmark.page.charts.hit_rate import hit_rate_by_turn, tier_shares
from kvloop.benchmark.page.charts.throughput import throughput
from kvloop.benchmark.page.charts.timeline import MOST_FAILURES, MOST_SAMPLES, timeline
from kvloop.benchmark.page.charts.token_times import token_times
from kvloop.benchmark.page.charts.ttft_by_length import MOST_POINTS, ttft_by_length
from kvloop.benchmark.page.figure import Figure
from kvloop.benchmark.page.svg import element
from kvloop.benchmark.page.thinning import thin
from kvloop.benchmark.results.document import Report
from kvloop.benchmark.sample import Failure, Sources

SMALL = {"conversations": 8, "turns": 3}


@cache
def four() -> Report:
    return make_report(1, **SMALL)


@cache
def sweep() -> Report:
    return make_report(1, arms=("on", "bypassed"), rates=(1.0, 2.0, 4.0), **SMALL)


@cache
def unanswered() -> Report:
    return make_report(1, fail_share=1.0, **SMALL)


def titles(figure: Figure) -> list[str]:
    return re.findall(r"<title>([^<]*)</title>", (figure.picture or "").replace("\u00a0", " "))


def keys(figure: Figure) -> list[str]:
    return [entry.label for entry in figure.key]


@pytest.mark.parametrize("time", [TTFT, E2E], ids=lambda t: t.name)
def test_times_by_turn_have_a_point_for_each_arm_and_turn(time: Time) -> None:
    figure = by_turn(four(), time)
    assert len(titles(figure)) == 4 * 3
    assert keys(figure) == ["cache on", "cache bypassed", "L3 only", "all miss"]
    assert "(8 requests)" in titles(figure)[0]


@pytest.mark.parametrize(("time", "field"), [(TTFT, "ttft_s"), (E2E, "e2e_s")])
def test_the_median_of_a_turn_is_the_samples_median(time: Time, field: str) -> None:
    report = four()
    chosen = [s for s in report.samples if s.arm == "on" and s.turn == 2]
    mine = sorted(getattr(s, field) for s in chosen)
    median = units.duration(500 * (mine[3] + mine[4])).replace(units.SPACE, " ")
    assert f"cache on, turn 2: median {median}" in " ".join(titles(by_turn(report, time)))


def test_without_samples_the_plots_by_turn_come_from_the_summaries() -> None:
    figure = by_turn(replace(four(), samples=()), TTFT)
    assert len(titles(figure)) == 12 and "up to the slowest tenth" in figure.explanation


def test_many_turns_are_drawn_as_areas() -> None:
    report = make_report(1, arms=("on",), conversations=5, turns=14)
    figure = by_turn(report, TTFT)
    assert "areas" in figure.explanation and 'class="band on"' in (figure.picture or "")
    assert 'class="span on"' not in (figure.picture or "")


def test_arms_differ_in_shape_and_not_only_in_colour() -> None:
    picture = str(by_turn(four(), TTFT).picture)
    shapes = {
        arm: re.search(rf'<(\w+)[^>]*class="mark {arm}"', picture).group(1)  # type: ignore[union-attr]
        for arm in ("on", "bypassed", "l3_only", "all_miss")
    }
    assert (shapes["on"], shapes["bypassed"]) == ("circle", "rect")
    triangle, diamond = (
        re.search(rf'<path d="([^"]*)" class="mark {arm}"', picture).group(1).count("L")  # type: ignore[union-attr]
        for arm in ("l3_only", "all_miss")
    )
    assert (triangle, diamond) == (2, 3)


def test_hits_are_stacked_by_tier_and_by_writer() -> None:
    figure = hit_rate_by_turn(four(), "on")
    assert keys(figure) == [
        "device memory (L1)",
        "host memory (L2)",
        "shared cache (L3), written by prefill",
        "shared cache (L3), written by decode",
        "computed",
        "possible to reuse",
    ]
    summary = four().arms[0].turns[1].summary
    assert sum(tier_shares(summary).values()) == pytest.approx(1.0)
    assert any(t.startswith("turn 2, device memory (L1): ") for t in titles(figure))
    assert any(t.startswith("turn 2: ") and "possible" in t for t in titles(figure))


def test_pages_whose_writer_is_not_named_have_a_part_of_their_own() -> None:
    summary = four().arms[0].turns[1].summary
    assert summary.sources is not None
    sources = replace(summary.sources, storage_by_prefill=0, storage_by_decode=0)
    assert "storage" in tier_shares(replace(summary, sources=sources))


def test_what_the_decode_node_kept_is_a_part_too() -> None:
    summary = four().arms[0].turns[1].summary
    sources = Sources(computed=1, transfer_skipped=4)
    kept = replace(summary, prompt_tokens=5, sources=sources)
    assert tier_shares(kept) == {"kept": 0.8, "computed": 0.2}


def test_a_server_without_tiers_shows_cached_and_computed() -> None:
    report = make_report(1, arms=("on",), has_sources=False, **SMALL)
    figure = hit_rate_by_turn(report, "on")
    assert keys(figure) == ["cached, tier not named", "computed", "possible to reuse"]


def test_a_server_that_reports_no_hits_has_no_plot_of_zeros() -> None:
    report = make_report(1, arms=("on",), has_sources=False, has_hits=False, **SMALL)
    figure = hit_rate_by_turn(report, "on")
    assert figure.picture is None and "does not report" in (figure.note or "")


def test_a_sweep_shows_each_step_with_its_offered_rate() -> None:
    figure = throughput(sweep())
    assert len(titles(figure)) == 2 * 3
    labels = re.findall(r'class="point-label">([^<]*)<', str(figure.picture))
    assert sorted(labels) == ["1", "1", "2", "2", "4", "4"]
    assert "4 requests/s offered" in " ".join(titles(figure))


def test_without_a_sweep_each_arm_is_a_point() -> None:
    assert len(titles(throughput(four()))) == 4


def test_lengths_show_each_request_and_the_medians_of_ranges() -> None:
    figure = ttft_by_length(four())
    num_ranges = sum(len(arm.lengths) for arm in four().arms)
    assert len(titles(figure)) == len(four().samples) + num_ranges


def test_token_times_show_itl_and_tpot_of_each_arm() -> None:
    figure = token_times(four())
    assert len(titles(figure)) == 2 * 4
    assert "ITL: " in str(figure.picture) and "TPOT: " in str(figure.picture)


def test_the_timeline_has_every_segment_request_and_failure() -> None:
    report = make_report(3, arms=("on", "bypassed"), fail_share=0.2, **SMALL)
    assert report.failures
    figure = timeline(report)
    num = len(report.segments) + len(report.samples) + len(report.failures)
    assert len(titles(figure)) == num and "failed request" in keys(figure)
    assert any("http_429" in t or "stalled" in t or "connect" in t for t in titles(figure))


def test_a_timeline_of_failures_alone_has_no_axis_of_times() -> None:
    figure = timeline(unanswered())
    assert figure.picture is not None and "time to first token" not in figure.picture


def test_a_report_without_its_requests_has_no_timeline() -> None:
    assert timeline(replace(four(), samples=())).picture is None


@pytest.mark.parametrize(
    "plot", [lambda r: by_turn(r, TTFT), throughput, ttft_by_length, token_times]
)
def test_plots_of_nothing_say_why(plot: Callable[[Report], Figure]) -> None:
    figure = plot(unanswered())
    assert figure.picture is None and "nothing to draw" in (figure.note or "")


def test_many_marks_are_thinned_and_the_reader_is_told() -> None:
    report = replace(four(), samples=four().samples * 60)
    drawn = timeline(report)
    assert len(titles(drawn)) == MOST_SAMPLES + len(report.segments)
    assert f"2,500 of {len(report.samples):,} requests are drawn" in (drawn.note or "")
    assert len(titles(ttft_by_length(report))) <= MOST_POINTS + 4 * 10


def test_the_slowest_requests_are_never_thinned_out() -> None:
    slowest = replace(four().samples[17], ttft_s=99.0)
    samples = (*four().samples * 30, slowest, *four().samples * 30)
    assert slowest in thin(samples, 100).samples
    assert len(thin(samples, 100).samples) == 100


def test_words_in_a_picture_are_escaped_in_attributes_and_between_tags() -> None:
    drawn = element("text", "<b>&", aria_label='"><script>')
    assert drawn == '<text aria-label="&#34;&gt;&lt;script&gt;">&lt;b&gt;&amp;</text>'


def test_more_failures_than_fit_are_counted() -> None:
    failure = Failure(conversation=0, turn=1, kind="connect", message="gone")
    report = replace(four(), failures=(failure,) * (MOST_FAILURES + 5))
    figure = timeline(report)
    assert f"The first {MOST_FAILURES} of 505 failures are drawn." in (figure.note or "")

"""What the page says first: verdict, warnings."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from bench_reports import make_report

from kvloop.benchmark.page import units
from kvloop.benchmark.page.alarms import alarms
from kvloop.benchmark.page.verdict import judge
from kvloop.benchmark.results.cautions import CUT_SHORT
from kvloop.benchmark.results.document import ArmResult, Claim, DriverCost, Report, Savings

SMALL = {"conversations": 8, "turns": 3}


@cache
def pair() -> Report:
    return make_report(1, arms=("on", "bypassed"), **SMALL)


@cache
def alone() -> Report:
    return make_report(1, arms=("on",), **SMALL)


@cache
def unanswered() -> Report:
    return make_report(1, arms=("on", "bypassed"), fail_share=1.0, **SMALL)


def with_claim(**values: Any) -> Report:
    claim = Claim(
        name="ttft_later_turns",
        arm="on",
        control="bypassed",
        num_conversations=8,
        words="",
        **values,
    )
    return replace(pair(), claims=(claim,))


def plain(words: str) -> str:
    return words.replace(units.SPACE, " ")


def test_the_headline_is_the_medians_the_factor_and_its_interval() -> None:
    report = with_claim(value=0.25, low=0.2, high=0.5)
    on, bypassed = (a.later_turns.ttft_ms for a in report.arms)
    assert on and bypassed
    headline = judge(report).headline
    assert f"after {units.duration(on.p50)} instead of {units.duration(bypassed.p50)}" in headline
    assert "4.00 x sooner (95 % between 2.00 and 5.00, from 8 conversations)" in headline


def test_a_loss_is_called_later() -> None:
    headline = judge(with_claim(value=1.5, low=1.2, high=2.0)).headline
    assert "1.50 x later (95 % between 1.20 and 2.00" in headline


def test_an_interval_around_one_is_no_difference() -> None:
    headline = judge(with_claim(value=0.9, low=0.8, high=1.1)).headline
    assert "no difference can be shown (ratio 0.90, 95 % between 0.80 and 1.10" in headline
    assert "sooner" not in headline


def test_a_ratio_of_some_conversations_says_of_which() -> None:
    report = with_claim(value=0.25, low=0.2, high=0.5)
    arms = (failing(report.arms[0], completed=23, failed=1), report.arms[1])
    headline = judge(replace(report, arms=arms)).headline
    assert "from the 8 conversations that both arms answered)" in headline


def test_too_few_conversations_claim_no_interval() -> None:
    headline = judge(with_claim(value=0.5, low=None, high=None)).headline
    assert "2.00 x sooner, but 8 conversations are too few" in headline


def test_without_a_control_no_saving_is_claimed() -> None:
    headline = judge(alone()).headline
    assert "cannot say what reuse saved" in headline and "sooner" not in headline


def test_a_run_without_answers_says_that_it_measured_nothing() -> None:
    verdict = judge(unanswered())
    assert verdict.headline == "No request was answered: this run measured nothing."
    assert verdict.tiles == ()


def test_conversations_of_one_turn_have_no_later_turns_to_speak_of() -> None:
    report = make_report(1, arms=("on", "bypassed"), conversations=6, turns=1)
    verdict = judge(report)
    assert verdict.headline.endswith("No conversation had a second turn.")
    on, bypassed = (a.all.ttft_ms for a in report.arms)
    assert on and bypassed
    after = f"the first token comes after {units.duration(on.p50)} instead of "
    assert after + units.duration(bypassed.p50) in verdict.headline
    assert verdict.tiles[0].label == "first token"
    assert "later turns" not in " ".join(verdict.sentences)


def test_a_claim_about_all_turns_is_the_headline_where_none_is_later() -> None:
    report = make_report(1, arms=("on", "bypassed"), conversations=6, turns=1)
    claim = replace(with_claim(value=0.5, low=0.4, high=0.6).claims[0], name="ttft")
    assert "2.00 x sooner (95 %" in judge(replace(report, claims=(claim,))).headline


def test_the_paragraph_tells_answers_hits_and_the_ceiling() -> None:
    text = plain(" ".join(judge(pair()).sentences))
    assert "All 48 requests of 2 arms were answered" in text
    assert "of later turns' prompt tokens came from the cache, of" in text
    assert f"where the load allows {plain(units.share(pair().ceiling.rate))}" in text  # type: ignore[union-attr]


def test_the_ceiling_of_the_whole_load_is_not_held_against_a_part_of_it() -> None:
    arm = pair().arms[0]
    few = replace(arm.counts, completed=20)
    part = replace(arm, counts=few, all=replace(arm.all, reusable_rate=0.31))
    verdict = judge(replace(pair(), arms=(part, pair().arms[1])))
    share = units.share(0.31)
    assert f"where what was answered allows {share}" in " ".join(verdict.sentences)
    assert any(f"{share} possible" in tile.detail for tile in verdict.tiles)


def test_unreported_hits_are_said_to_be_unknown() -> None:
    report = make_report(1, arms=("on",), has_sources=False, has_hits=False, **SMALL)
    text = " ".join(judge(report).sentences)
    assert "does not report how many prompt tokens" in text


def test_savings_come_with_their_price_and_how_they_were_counted() -> None:
    saved = Savings(
        arm="on",
        control="bypassed",
        gpu_s=10.0,
        low=8.0,
        high=12.0,
        per_1000_requests_s=500.0,
        price_per_gpu_hour=2.5,
        price_per_1000_requests=0.35,
        how="measured",
    )
    text = " ".join(judge(replace(pair(), savings=saved)).sentences)
    assert "saved 500 seconds of computing per 1,000 requests, 0.350 at a price of 2.50" in text
    assert "(measured)" in text
    lost = replace(saved, gpu_s=-1.0, per_1000_requests_s=-50.0)
    (said,) = [s for s in judge(replace(pair(), savings=lost)).sentences if "computing" in s]
    assert "saved no computing, it took 50.0 seconds of computing more per 1,000 requests" in said


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(None, None, "cannot be told"), (-2.0, 22.0, "may be chance"), (8.0, 12.0, None)],
)
def test_savings_that_may_be_chance_say_so(
    low: float | None, high: float | None, words: str | None
) -> None:
    saved = Savings(
        arm="on",
        control="bypassed",
        gpu_s=10.0,
        low=low,
        high=high,
        per_1000_requests_s=500.0,
        price_per_gpu_hour=None,
        price_per_1000_requests=None,
        how="measured",
    )
    (said,) = [s for s in judge(replace(pair(), savings=saved)).sentences if "computing" in s]
    assert (words in said) if words else ("requests (measured)" in said)


def test_a_late_end_of_the_answers_stands_beside_a_sooner_first_token() -> None:
    sooner = with_claim(value=0.5, low=0.4, high=0.6).claims[0]
    late = replace(sooner, name="e2e", value=2.0, low=1.8, high=2.2)
    verdict = judge(replace(pair(), claims=(sooner, late)))
    assert "2.00 x sooner" in verdict.headline
    (said,) = [s for s in verdict.sentences if "end of an answer" in s]
    assert "2.00 x later (95 % between 1.80 and 2.20" in said


def test_other_pairs_claims_are_listed_with_their_conversations_the_headlines_is_not() -> None:
    main = replace(with_claim(value=0.5, low=0.4, high=0.6).claims[0], words="the main one")
    other = replace(main, control="all_miss", num_conversations=2, words="sooner than all miss")
    claims = judge(replace(pair(), claims=(main, other))).claims
    assert claims == ("Sooner than all miss (from 2 conversations).",)


def test_tiles_show_the_control_beside_each_number_that_it_has() -> None:
    bypassed = pair().arms[1]
    assert bypassed.later_turns.ttft_ms and bypassed.goodput
    details = {tile.label: tile.detail for tile in judge(pair()).tiles}
    for label, value in (
        ("first token of later turns", units.duration(bypassed.later_turns.ttft_ms.p50)),
        ("output tokens a second", units.digits(bypassed.rates.output_tokens_per_s)),
        ("requests within the objective", units.share(bypassed.goodput.share)),
    ):
        assert details[label].endswith(f"; {value} without reuse")
    assert not any("without reuse" in tile.detail for tile in judge(alone()).tiles)


def test_equal_answers_are_told_and_different_ones_are_a_problem() -> None:
    same = replace(pair(), answers_compared=48, answers_different=0)
    assert "All 48 answers" in " ".join(judge(same).sentences)
    differ = replace(pair(), answers_compared=48, answers_different=3)
    assert "All 48 answers" not in " ".join(judge(differ).sentences)
    (alarm,) = [a for a in alarms(differ) if "differ" in a.words]
    assert alarm.level == "bad" and alarm.words.startswith("3 of 48")


def test_tiles_show_first_tokens_hits_output_and_goodput() -> None:
    labels = [tile.label for tile in judge(pair()).tiles]
    assert labels == [
        "first token of later turns",
        "prompt tokens from the cache",
        "output tokens a second",
        "requests within the objective",
    ]


def failing(arm: ArmResult, **counts: int) -> ArmResult:
    return replace(arm, counts=replace(arm.counts, **counts), errors={"http_429": 2, "connect": 1})


def test_failures_are_counted_by_kind_and_arm() -> None:
    arms = (failing(pair().arms[0], failed=3), pair().arms[1])
    (alarm, *_) = alarms(replace(pair(), arms=arms))
    assert alarm.level == "bad"
    assert (
        alarm.words == "In the arm “cache on”, of 24 requests 3 failed (http_429 2 x, connect 1 x)."
    )


def test_requests_that_were_not_sent_are_told() -> None:
    arms = (replace(pair().arms[0], counts=replace(pair().arms[0].counts, not_sent=5)),)
    (alarm, *_) = alarms(replace(pair(), arms=arms))
    assert "5 were not sent" in alarm.words


def test_a_run_that_was_cut_short_says_so_first() -> None:
    (alarm, *_) = alarms(replace(pair(), is_cut_short=True))
    assert alarm.level == "bad" and "cut short" in alarm.words


def test_a_run_that_was_cut_short_says_so_once() -> None:
    report = replace(pair(), is_cut_short=True, warnings=(CUT_SHORT, "SIGTERM ended the run early"))
    words = [alarm.words for alarm in alarms(report)]
    assert len(words) == 2 and "cut short" in words[0]


def test_the_reports_warnings_are_shown_and_those_that_shout_are_problems() -> None:
    report = replace(pair(), warnings=("too few rounds", "NO REUSE: arm on hit nothing"))
    shown = [(a.level, a.words) for a in alarms(report)]
    assert shown == [("bad", "NO REUSE: arm on hit nothing"), ("warning", "Too few rounds")]


@pytest.mark.parametrize("warnings", [(), ("the driver was the bottleneck: late by 90 ms",)])
def test_a_driver_that_was_the_bottleneck_is_told_once(warnings: tuple[str, ...]) -> None:
    cost = DriverCost(
        lag_ms=None, cpu_share=1.0, most_streams=9, is_bottleneck=True, words="late by 90 ms"
    )
    shown = alarms(replace(pair(), driver=cost, warnings=warnings))
    assert len([a for a in shown if "late by 90 ms" in a.words]) == 1

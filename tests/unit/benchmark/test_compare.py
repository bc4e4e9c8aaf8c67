"""Two reports side by side: what is compared with what, and what comes of it."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from bench_reports import make_report

from kvloop.benchmark.compare.compare import compare
from kvloop.benchmark.compare.comparison import Comparison, Row
from kvloop.benchmark.compare.verdict import Tolerances
from kvloop.benchmark.results import bootstrap
from kvloop.benchmark.results.document import Report
from kvloop.benchmark.sample import Failure, Sample
from kvloop.shared_cache.errors import ConfigError


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for changes as large as these."""
    monkeypatch.setattr(bootstrap, "ROUNDS", 300)


def report(seed: int = 1, **shape: Any) -> Report:
    return make_report(seed, **({"arms": ("on",), "conversations": 12, "turns": 3} | shape))


def changed(base: Report, change: Callable[[Sample], Sample]) -> Report:
    return replace(base, samples=tuple(map(change, base.samples)))


def slower(base: Report, factor: float, arms: tuple[str, ...] = ("on",)) -> Report:
    def slow(sample: Sample) -> Sample:
        if sample.arm not in arms:
            return sample
        more_s = (factor - 1) * sample.ttft_s
        return replace(sample, ttft_s=sample.ttft_s + more_s, ended_at=sample.ended_at + more_s)

    return changed(base, slow)


def compared(a: Report, b: Report, **options: Any) -> Comparison:
    return compare(a, b, options.pop("tolerances", Tolerances()), **options)


def row(comparison: Comparison, metric: str, arm: str = "on") -> Row:
    (found,) = [r for r in comparison.rows if (r.metric, r.arm) == (metric, arm)]
    return found


def test_a_report_against_itself_is_the_same_in_every_number() -> None:
    base = report()
    comparison = compared(base, base)
    assert {r.verdict for r in comparison.rows} == {"same"}
    assert {r.change for r in comparison.rows if r.scale == "ratio"} == {1.0}
    assert not comparison.has_regressed


def test_every_number_is_there_with_its_direction() -> None:
    base = report(conversations=40)
    directions = {r.metric: r.better for r in compared(base, base).rows}
    times = {
        f"{name}_{part}"
        for name in ("ttft", "itl", "tpot", "e2e")
        for part in ("mean", "p50", "p99")
    }
    later = {"ttft_mean_later", "ttft_p50_later"}
    turns = {f"ttft_{part}_turn_{turn}" for part in ("mean", "p50") for turn in (1, 2, 3)}
    worse_when_higher = times | later | turns | {"error_share"}
    worse_when_lower = {"hit_rate", "hit_rate_later", "output_rate", "request_rate", "goodput"}
    assert worse_when_higher <= directions.keys() and worse_when_lower <= directions.keys()
    assert {directions[name] for name in worse_when_higher} == {"lower"}
    assert {directions[name] for name in worse_when_lower} == {"higher"}


def test_values_are_those_of_the_report_itself() -> None:
    base = report(conversations=40)
    (arm,) = base.arms
    comparison = compared(base, base)
    assert arm.all.ttft_ms and arm.all.itl_ms and arm.all.tpot_ms and arm.all.e2e_ms
    assert arm.later_turns.ttft_ms and arm.goodput
    expected = {
        "ttft_mean": arm.all.ttft_ms.mean,
        "ttft_p50": arm.all.ttft_ms.p50,
        "ttft_p99": arm.all.ttft_ms.p99,
        "ttft_p50_later": arm.later_turns.ttft_ms.p50,
        "itl_p50": arm.all.itl_ms.p50,
        "tpot_mean": arm.all.tpot_ms.mean,
        "e2e_p99": arm.all.e2e_ms.p99,
        "hit_rate": arm.all.hit_rate,
        "hit_rate_later": arm.later_turns.hit_rate,
        "output_rate": arm.rates.output_tokens_per_s,
        "request_rate": arm.rates.requests_per_s,
        "goodput": arm.goodput.share,
        "error_share": 0.0,
    }
    assert {name: row(comparison, name).a for name in expected} == pytest.approx(expected)


def test_a_slower_first_token_is_a_regression_by_its_name() -> None:
    comparison = compared(report(), slower(report(), 1.3))
    assert row(comparison, "ttft_mean").change == pytest.approx(1.3)
    assert {"ttft_mean", "ttft_p50_later"} <= {r.metric for r in comparison.of("regression")}
    assert row(comparison, "itl_mean").verdict == "same"
    assert comparison.has_regressed


def test_a_faster_first_token_is_an_improvement() -> None:
    comparison = compared(slower(report(), 1.3), report())
    assert row(comparison, "ttft_mean").verdict == "improvement"
    assert not comparison.has_regressed


def test_the_tolerance_of_a_metric_is_the_one_that_was_given_for_it() -> None:
    tolerances = Tolerances(rules=(("ttft_*", 0.5),))
    comparison = compared(report(), slower(report(), 1.3), tolerances=tolerances)
    assert row(comparison, "ttft_mean").verdict == "same"
    assert row(comparison, "ttft_mean").tolerance == 0.5


def test_pairs_cancel_what_makes_a_conversation_long() -> None:
    base = report()
    paired = row(compared(base, slower(base, 1.3)), "ttft_mean")
    other = replace(slower(base, 1.3), workload=base.workload | {"seed": 9})
    apart = row(compared(base, other, allow_different_load=True), "ttft_mean")
    assert paired.low and paired.high and apart.low and apart.high
    assert paired.high - paired.low < 0.01 < apart.high - apart.low


def test_runs_of_one_load_are_paired_and_others_are_not() -> None:
    base = report()
    assert compared(base, report(2)).is_paired
    other = replace(base, workload=base.workload | {"turns": 4})
    comparison = compared(base, other, allow_different_load=True)
    assert not comparison.is_paired
    assert comparison.differences == {"turns": (3, 4)}


def test_different_loads_are_refused_and_the_flags_named() -> None:
    base = report()
    other = replace(base, workload=base.workload | {"turns": 4, "think": {"mean_s": 1}})
    with pytest.raises(ConfigError) as told:
        compared(base, other)
    assert "think.mean_s: not given and 1; turns: 3 and 4" in str(told.value)
    assert "--different-load" in str(told.value)


def test_only_arms_of_both_are_compared_and_the_others_listed() -> None:
    a, b = report(arms=("on", "bypassed")), report(arms=("on", "all_miss"))
    comparison = compared(a, b)
    assert {r.arm for r in comparison.rows} == {"on"}
    assert (comparison.only_in_a, comparison.only_in_b) == (("bypassed",), ("all_miss",))


def test_only_the_arms_that_were_asked_for_are_compared() -> None:
    base = report(arms=("on", "bypassed"))
    comparison = compared(base, base, arms=("bypassed",))
    assert {r.arm for r in comparison.rows} == {"bypassed"}
    assert comparison.only_in_a == ()


def test_an_arm_that_one_report_has_not_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"--arm bypassed: .* the second on"):
        compared(report(arms=("on", "bypassed")), report(), arms=("bypassed",))


def test_reports_without_a_common_arm_are_refused() -> None:
    with pytest.raises(ConfigError, match="no arm is in both reports"):
        compared(report(arms=("on",)), report(arms=("bypassed",)))


def test_each_rate_of_a_sweep_is_compared_by_itself() -> None:
    base = report(rates=(1.0, 2.0))
    comparison = compared(base, base)
    assert {r.place for r in comparison.rows} == {"on at 1/s", "on at 2/s"}
    other = compared(base, report(rates=(1.0, 3.0)))
    assert {r.place for r in other.rows} == {"on at 1/s"}
    assert (other.only_in_a, other.only_in_b) == (("on at 2/s",), ("on at 3/s",))


def test_a_rate_is_the_same_at_whichever_step_it_was_offered() -> None:
    two, one = report(rates=(1.0, 4.0)), report(rates=(4.0,))
    comparison = compared(
        two, replace(one, workload=two.workload | {"rates": [4.0]}), allow_different_load=True
    )
    assert {(r.place, r.rate) for r in comparison.rows} == {("on at 4/s", 4.0)}
    assert (comparison.only_in_a, comparison.only_in_b) == (("on at 1/s",), ())


def test_a_rate_that_was_offered_twice_is_compared_twice() -> None:
    twice = report(rates=(4.0, 4.0))
    assert [r.step for r in compared(twice, twice).rows if r.metric == "ttft_mean"] == [0, 1]


def test_a_conversation_that_failed_in_one_run_is_in_the_times_of_neither() -> None:
    base = report()
    lost = tuple(s for s in base.samples if (s.conversation, s.turn) != (4, 3))
    failure = Failure(conversation=4, turn=3, kind="stalled", message="no token")
    comparison = compared(base, replace(base, samples=lost, failures=(failure,)))
    assert comparison.left_out == {"on": 1}
    assert row(comparison, "ttft_mean").num_conversations == 11
    assert row(comparison, "ttft_mean").change == 1.0
    assert row(comparison, "error_share").num_conversations == 12
    assert row(comparison, "error_share").b == pytest.approx(1 / 36)


def test_without_pairs_each_run_leaves_out_its_own_failed_conversations() -> None:
    base = report()
    failure = Failure(conversation=4, turn=4, kind="stalled", message="no token")
    other = replace(base, failures=(failure,), workload=base.workload | {"seed": 9})
    for one, another in ((base, other), (other, base)):
        comparison = compared(one, another, allow_different_load=True)
        assert comparison.left_out == {"on": 1}
        assert row(comparison, "ttft_mean").num_conversations == 11


def test_turns_that_were_not_sent_missed_their_objectives() -> None:
    base = report(fail_share=0.2)
    (arm,) = base.arms
    assert arm.counts.not_sent and arm.goodput
    assert row(compared(base, base), "goodput").a == pytest.approx(arm.goodput.share)


def test_that_nothing_was_answered_is_a_regression_however_few_there_were() -> None:
    comparison = compared(report(conversations=3), report(conversations=3, fail_share=1.0))
    assert [r.metric for r in comparison.of("regression")] == ["error_share"]


def test_that_nothing_was_even_sent_is_a_regression() -> None:
    arms = tuple(
        replace(arm, counts=replace(arm.counts, completed=0, not_sent=arm.counts.planned))
        for arm in report().arms
    )
    cut = replace(report(), arms=arms, samples=(), is_cut_short=True)
    assert row(compared(report(), cut), "error_share").verdict == "regression"
    gate = Tolerances(rules=(("*", math.inf), ("ttft_mean_later", 0.1)))
    assert compared(report(), cut, tolerances=gate).has_regressed
    assert not compared(cut, cut).has_regressed and not compared(cut, report()).has_regressed


def test_fewer_than_five_conversations_tell_nothing() -> None:
    base = report(conversations=4)
    comparison = compared(base, slower(base, 3.0))
    assert row(comparison, "ttft_mean").verdict == "cannot tell"
    assert row(comparison, "ttft_mean").why == "4 conversations, 5 are needed"
    assert row(comparison, "ttft_mean").change == pytest.approx(3.0)


def test_the_99th_percentile_needs_a_hundred_values() -> None:
    small = compared(report(conversations=30), report(conversations=30))
    assert "ttft_p99" not in {r.metric for r in small.rows}
    assert "itl_p99" in {r.metric for r in small.rows}


def test_a_rate_follows_how_long_conversations_were_held() -> None:
    base = report()

    def longer(sample: Sample) -> Sample:
        return replace(sample, sent_at=2 * sample.sent_at, ended_at=2 * sample.ended_at)

    arms = tuple(replace(arm, seconds=2 * arm.seconds) for arm in base.arms)
    comparison = compared(base, replace(changed(base, longer), arms=arms))
    assert row(comparison, "output_rate").change == pytest.approx(0.5)
    assert row(comparison, "request_rate").verdict == "regression"


def test_branches_are_drawn_with_the_conversation_they_began_in() -> None:
    base = report()
    families = {number: number - number % 2 for number in range(1, 12, 2)}
    mean = row(compared(*[replace(base, families=families)] * 2), "ttft_mean")
    assert mean.num_conversations == 6
    rate = row(compared(base, replace(base, families=families)), "output_rate")
    assert rate.a == pytest.approx(rate.b)


def test_a_server_that_reports_no_hits_has_no_hit_rate_to_compare() -> None:
    comparison = compared(report(), report(has_hits=False, has_sources=False))
    assert not {r.metric for r in comparison.rows} & {"hit_rate", "hit_rate_later"}


def test_which_server_does_not_tell_its_hits_is_said() -> None:
    def lines(a: Report, b: Report) -> list[str]:
        said = compared(a, b, names=("kvloop", "vllm")).warnings
        return [line for line in said if "hit rates are left out" in line]

    other = report(has_hits=False, has_sources=False)
    (line,) = lines(report(), other)
    assert line.startswith("on: hit rates are left out: vllm does not report cached tokens")
    assert lines(report(), report()) == lines(other, other) == []


def test_a_lower_hit_rate_is_a_regression_in_points() -> None:
    base = report()

    def colder(sample: Sample) -> Sample:
        return replace(sample, cached_tokens=(sample.cached_tokens or 0) // 2)

    hits = row(compared(base, changed(base, colder)), "hit_rate")
    assert hits.scale == "points" and hits.verdict == "regression"
    assert hits.change == pytest.approx(-(hits.a or 0) / 2, abs=0.01)


def test_goodput_under_other_objectives_is_left_out_and_said() -> None:
    base = report()
    (arm,) = base.arms
    assert arm.goodput is not None
    other = replace(base, arms=(replace(arm, goodput=replace(arm.goodput, ttft_ms=900.0)),))
    comparison = compared(base, other)
    assert "goodput" not in {r.metric for r in comparison.rows}
    assert "on: goodput is left out: the objectives are not the same" in comparison.warnings


def test_answers_that_differ_are_counted_but_not_those_of_unique_prompts() -> None:
    base = report(arms=("on", "all_miss"))

    def other(sample: Sample) -> Sample:
        return replace(sample, answer_digest="x") if sample.conversation < 2 else sample

    comparison = compared(base, changed(base, other))
    assert (comparison.answers_compared, comparison.answers_different) == (36, 6)


def test_a_report_without_samples_is_refused_with_what_to_do() -> None:
    base = report()
    with pytest.raises(ConfigError, match=r"b\.json: holds no samples.*without --no-samples"):
        compared(base, replace(base, samples=()), files=("a.json", "b.json"))


def test_a_tolerance_for_a_metric_that_is_not_there_is_refused() -> None:
    tolerances = Tolerances(rules=(("tttf_mean", 0.1),))
    with pytest.raises(ConfigError, match=r"--metric tttf_mean: .*ttft_mean"):
        compared(report(), report(), tolerances=tolerances)


def test_what_a_reader_must_know_of_either_run_is_said() -> None:
    base = report()
    assert base.driver is not None
    driver = replace(base.driver, is_bottleneck=True, words="it was 90 ms late")
    server = replace(base.server, model="other-model")
    other = replace(
        base,
        is_cut_short=True,
        driver=driver,
        warnings=("turn 1 hit",),
        server=server,
        hardware="H",
    )
    told = " | ".join(compared(base, other, names=("old", "new")).warnings)
    for words in (
        "new was cut short",
        "new: the driver was the bottleneck: it was 90 ms late",
        "new: turn 1 hit",
        "different models: SmolLM2-135M-Instruct and other-model",
        "different hardware",
    ):
        assert words in told


@pytest.mark.slow
def test_two_runs_of_one_server_are_seldom_said_to_differ() -> None:
    alarms = sum(
        compared(
            report(2 * n, conversations=20, turns=6), report(2 * n + 1, conversations=20, turns=6)
        ).has_regressed
        for n in range(100)
    )
    assert alarms <= 10

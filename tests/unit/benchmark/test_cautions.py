"""What a reader must know before believing a report."""

from collections.abc import Sequence

import pytest
from bench_runs import Load, MadeRun, conversations, failure, sample

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.sample import Sample, Sources
from kvloop.benchmark.workloads.plan import Ceiling, Content

NUM = 6


def held(
    arm: Arm, hit: float = 0.0, possible: float = 0.8, num: int = NUM, **changes: object
) -> list[Sample]:
    """Two turns each; the first began cold."""
    return [
        sample(
            arm,
            conversation,
            turn,
            **{
                "sent_at": 2.0 * turn,
                "ended_at": 2.0 * turn + 1.5,
                "round": conversation % 2,
                "cached_tokens": int(100 * hit) if turn > 1 else 0,
                "reusable_tokens": int(100 * possible) if turn > 1 else 0,
                **changes,
            },
        )
        for conversation in range(num)
        for turn in (1, 2)
    ]


def warnings(
    *arms: Sequence[Sample],
    ceiling: Ceiling | None = None,
    content: Content = "token-ids",
    num: int = NUM,
    at_s: float | None = None,
    **more: object,
) -> list[str]:
    load = Load(conversations=conversations(num, at_s=at_s), ceiling=ceiling, content=content)
    every = [each for arm in arms for each in arm]
    made = MadeRun(samples=every, load=load, **{"rounds": 2, **more})  # type: ignore[arg-type]
    return list(made.report().warnings)


def ceiling(rate: float) -> Ceiling:
    return Ceiling(tokens=1000, reusable_tokens=int(1000 * rate), words="counted")


def has(lines: list[str], words: str) -> bool:
    return any(words in line for line in lines)


def test_a_run_as_it_should_be_has_nothing_to_beware_of() -> None:
    assert warnings(held("on", 0.78), held("bypassed"), ceiling=ceiling(0.4)) == []


@pytest.mark.parametrize("arm", ["on", "l3_only"])
def test_reuse_that_is_gone_is_named_first_and_loudly(arm: Arm) -> None:
    lines = warnings(held(arm), held("bypassed"), is_bottleneck=True)
    assert lines[0] == f"NO REUSE: arm {arm} hit nothing, where 40.0% can hit"


def test_reuse_far_below_what_is_possible_is_named() -> None:
    lines = warnings(held("on", 0.3), held("bypassed"))
    assert has(lines, "WEAK REUSE: arm on hit 15.0% of its prompt tokens, where 40.0% can hit")


def test_what_is_possible_is_by_the_loads_own_count_where_that_is_more() -> None:
    every = held("on", possible=0.0)
    assert not has(warnings(every), "NO REUSE")
    assert has(warnings(every, ceiling=ceiling(0.5)), "NO REUSE: arm on hit nothing, where 50.0%")
    # half of the load was not sent: what it could reuse is not known
    first = [s for s in every if s.turn == 1]
    assert not has(warnings(first, ceiling=ceiling(0.5)), "NO REUSE")


def test_next_to_nothing_possible_is_no_cause_for_alarm() -> None:
    assert not has(warnings(held("on", possible=0.04)), "REUSE")


def test_a_server_that_reports_no_hits_is_no_server_without_hits() -> None:
    lines = warnings(held("on", cached_tokens=None))
    assert has(lines, "on: the server reports no cached tokens") and not has(lines, "NO REUSE")


def test_answers_that_report_no_hits_are_counted_where_others_do() -> None:
    every = held("on", 0.78)
    some = [*held("on", cached_tokens=None)[:1], *every[1:]]
    assert has(warnings(some), "on: 1 of 12 answers report no cached tokens: its hit rate")


@pytest.mark.parametrize("tier", ["device", "host", "transfer_skipped"])
def test_the_arm_of_the_shared_cache_alone_that_hits_elsewhere_is_named(tier: str) -> None:
    def lines(sources: Sources) -> list[str]:
        return warnings(held("l3_only", 0.78, sources=sources), held("bypassed"))

    words = "arm l3_only hit other tiers than L3 (84 tokens)"
    assert has(lines(Sources(**{tier: 7})), words)
    assert not has(lines(Sources(storage=7, computed=3)), "other tiers")


def test_a_bypass_that_hits_is_no_control() -> None:
    lines = warnings(held("on", 0.78), held("bypassed", 0.2))
    assert has(lines, "arm bypassed hit the cache (120 tokens)")


def test_prompts_of_their_own_that_hit_are_no_control() -> None:
    arms = held("on", 0.78), held("all_miss", 0.2)
    assert has(warnings(*arms), "arm all_miss hit the cache (120 tokens)")
    # the template's own words, before the first message
    assert not has(warnings(*arms, content="text"), "arm all_miss hit the cache")


def test_an_arm_that_begins_warm_is_named() -> None:
    def lines(early: int, content: Content = "token-ids") -> list[str]:
        first = held("on", 0.78, cached_tokens=early)
        return warnings(first, held("bypassed"), content=content)

    assert has(lines(32), "arm on began warm") and not has(lines(0), "began warm")
    assert not has(lines(32, "text"), "began warm") and has(lines(90, "text"), "began warm")


def test_misses_later_on_make_no_warm_start_a_cold_one() -> None:
    every = [s for s in held("on", cached_tokens=64) if s.turn == 1]
    later = [s for s in held("on", cached_tokens=0) if s.turn == 2]
    assert has(warnings([*every, *later]), "arm on began warm")


def test_a_shared_beginning_that_all_but_the_first_hit_is_no_warm_start() -> None:
    shared = [
        sample("on", n, 1, sent_at=0.001 * n, cached_tokens=0 if n == 2 else 64) for n in range(6)
    ]
    assert not has(warnings(shared), "began warm")


def test_more_hits_than_the_load_can_give_are_named() -> None:
    assert has(warnings(held("on", 0.78), ceiling=ceiling(0.3)), "above the 30.0%")
    assert not has(warnings(held("on", 0.78), ceiling=ceiling(0.39)), "above the")


def test_a_bottleneck_of_a_driver_is_told_in_its_own_words() -> None:
    assert has(warnings(held("on", 0.78), is_bottleneck=True), "The driver was too slow")


def test_arms_that_lost_different_numbers_of_requests_are_named() -> None:
    ours = [s for s in held("on", 0.78) if (s.conversation, s.turn) != (3, 2)]
    lines = warnings(ours, held("bypassed"), failures=[failure("on", 3, 2, round=1)])
    assert has(lines, "arms lost different numbers of requests (on 1, bypassed 0)")
    assert has(lines, "left out of what compares it with another: 1 of on against bypassed")


def test_one_lost_request_of_hundreds_is_no_difference_between_arms() -> None:
    ours, theirs = held("on", 0.78, num=100), held("bypassed", num=100)
    assert not has(warnings(ours[1:], theirs, num=100), "arms lost")
    assert has(warnings(ours[3:], theirs, num=100), "arms lost different numbers")


def test_short_answers_are_counted_by_arm() -> None:
    lines = warnings(held("on", 0.78), held("bypassed", is_short=True))
    assert has(lines, "12 answers of arm bypassed had fewer tokens")
    assert not has(lines, "answers of arm on")


def test_too_few_conversations_are_named() -> None:
    assert has(warnings(held("on", 0.78, num=4), held("bypassed", num=4), num=4), "4 conversations")
    assert not has(warnings(held("on", 0.78), held("bypassed")), "too few")
    assert not has(warnings(held("on", 0.78, num=4), num=4), "too few")


def test_arms_that_did_not_take_turns_are_named() -> None:
    arms = held("on", 0.78, round=0), held("bypassed", round=0)
    assert has(warnings(*arms, rounds=1), "each arm ran once")
    assert not has(warnings(arms[0], rounds=1), "each arm ran once")


def test_a_change_from_the_first_round_to_the_last_is_named() -> None:
    def lines(later: float, longer: int = 0) -> list[str]:
        every = [
            sample(
                "on",
                n,
                1,
                round=n % 2,
                ttft_s=0.4 * (later if n % 2 else 1.0),
                prompt_tokens=100 + longer * (n % 2),
            )
            for n in range(24)
        ]
        return warnings(every, num=24)

    assert has(lines(1.3), "arm on: the median TTFT of its later rounds is +30%")
    assert has(lines(0.7), "-30%")
    assert not has(lines(1.15), "later rounds")
    assert not has(lines(1.3, longer=50), "later rounds")  # other prompts, other times


def test_a_change_that_chance_could_make_is_not_named() -> None:
    def lines(*ttft_s: float, turns: int = 1) -> list[str]:
        every = [
            sample("on", n, turn, round=n % 2, ttft_s=seconds)
            for n, seconds in enumerate(ttft_s)
            for turn in range(1, turns + 1)
        ]
        return warnings(every, num=len(ttft_s))

    later, earlier = (0.1, 0.2, 0.5, 0.5, 0.9) * 2, (0.1, 0.2, 0.3, 0.5, 0.9) * 2
    assert not has(
        lines(*(t for both in zip(earlier, later, strict=True) for t in both)), "later rounds"
    )
    # of three conversations each there is no interval: only what is crass is told
    assert not has(lines(*(0.4, 0.7) * 3, turns=4), "later rounds")
    assert has(lines(*(0.4, 0.9) * 3, turns=4), "later rounds is +125%")


def test_the_later_half_of_the_rounds_is_set_against_the_earlier() -> None:
    every = [sample("on", n, 1, round=n % 4, ttft_s=0.4 if n % 4 < 2 else 0.6) for n in range(24)]
    assert has(warnings(every, num=24, rounds=4), "later rounds is +50%")
    one_off = [
        sample("on", n, 1, round=n % 5, ttft_s=2.0 if n % 5 == 2 else 0.4) for n in range(40)
    ]
    assert not has(warnings(one_off, num=40, rounds=5), "later rounds")


def test_rounds_of_which_few_point_the_other_way_agree() -> None:
    def lines(*ratios: float) -> list[str]:
        num = len(ratios)
        ours = [sample("on", n, 1, round=n % num, ttft_s=ratios[n % num]) for n in range(3 * num)]
        theirs = [sample("bypassed", n, 1, round=n % num, ttft_s=1.0) for n in range(3 * num)]
        load = Load(conversations=conversations(3 * num, 1))
        return list(MadeRun(samples=[*ours, *theirs], load=load, rounds=num).report().warnings)

    assert not has(lines(0.7, 0.75, 0.8, 0.7, 0.8, 0.75, 0.7, 1.02), "disagree")
    assert has(lines(0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 3.0), "rounds disagree")


def test_rounds_that_disagree_are_named_though_the_interval_is_sure() -> None:
    def lines(*ratios: float) -> list[str]:
        ours = [
            sample("on", n, 1, round=n % 2, ttft_s=0.4 * ratios[n % 2], prompt_tokens=9 + n % 2)
            for n in range(8)
        ]
        theirs = [sample("bypassed", n, 1, round=n % 2, ttft_s=0.4) for n in range(8)]
        load = Load(conversations=conversations(8, 1))
        return list(MadeRun(samples=[*ours, *theirs], load=load, rounds=2).report().warnings)

    assert not has(lines(0.5, 0.6), "disagree")
    assert not has(lines(0.5, 1.1), "disagree")  # the interval says so itself
    mixed = [sample("on", n, 1, round=int(n > 8), ttft_s=0.2 if n < 9 else 0.5) for n in range(10)]
    control = [sample("bypassed", n, 1, round=int(n > 8), ttft_s=0.4) for n in range(10)]
    load = Load(conversations=conversations(10, 1))
    found = MadeRun(samples=[*mixed, *control], load=load, rounds=2).report().warnings
    assert has(list(found), "on against bypassed: rounds disagree on the TTFT of all turns")
    assert has(list(found), "(ratios 0.50, 1.25)")


def test_requests_offered_but_sent_late_are_named() -> None:
    late = held("on", 0.78, late_s=3.0)
    assert has(warnings(late, rates=(5.0,)), "more than 3.0 s after they were due")
    assert has(warnings(late, at_s=1.0), "more than 3.0 s after they were due")
    assert not has(warnings(late), "after they were due")


def test_answers_by_a_fallback_are_counted() -> None:
    lines = warnings(held("on", 0.78, fallback="local_prefill"), held("bypassed"))
    assert has(lines, "answers by a fallback (on 12)")


def test_a_run_without_one_answer_says_so_first() -> None:
    run = MadeRun(failures=[failure("on"), failure("bypassed")])
    assert run.report().warnings[0] == "NO ANSWERS: not one request was answered"


def test_a_run_cut_short_says_so() -> None:
    assert has(warnings(held("on", 0.78), is_cut_short=True), "ended before its load did")


def test_each_warning_of_the_driver_is_told_once() -> None:
    run = MadeRun(samples=[sample()], warnings=("the server went away",))
    lines = run.report(more_warnings=("the server went away", "a node was gone")).warnings
    assert lines.count("the server went away") == lines.count("a node was gone") == 1

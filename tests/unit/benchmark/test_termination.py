"""The termination message: what an operator needs, in at most 4,096 bytes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_reports import make_report
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.outlets.termination import (
    MAX_BYTES,
    Ending,
    shortened,
    summarize,
    write_termination_message,
)
from kvloop.benchmark.results.document import Report, Summary

DONE = Ending(phase="Succeeded", reason="Completed", message="sooner")
REPORT = make_report(1, conversations=10, turns=3)


WIDE = -1.234567e-300
"""Of all numbers the longest in JSON."""


def widest(summary: Summary) -> Summary:
    assert summary.ttft_ms
    spread = replace(summary.ttft_ms, mean=WIDE, p50=WIDE, p99=WIDE)
    return replace(
        summary, ttft_ms=spread, itl_ms=spread, hit_rate=WIDE, reusable_rate=WIDE, prompt_tokens=7
    )


def read(report: Report | None, ending: Ending = DONE) -> dict[str, Any]:
    content = summarize(report, ending)
    assert len(content) <= MAX_BYTES == 4096
    document: dict[str, Any] = json.loads(content)
    return document


def test_it_says_how_the_run_ended_and_what_was_measured() -> None:
    document = read(REPORT)
    assert (document["schema"], document["phase"], document["reason"], document["message"]) == (
        "kvloop.bench.summary/1",
        "Succeeded",
        "Completed",
        "sooner",
    )
    assert document["server"] == {
        "url": REPORT.server.url,
        "model": REPORT.server.model,
        "name": "kvloop",
    }
    assert document["started_at"] == REPORT.started_at
    assert document["duration_s"] == pytest.approx(REPORT.duration_s, rel=1e-3)
    assert document["version"] == REPORT.version and document["title"] == REPORT.title
    assert document["is_cut_short"] is False and document["is_driver_bottleneck"] is False
    assert document["num_warnings"] == len(REPORT.warnings)
    assert document["answers_different"] == REPORT.answers_different


def test_each_arm_has_its_counts_rates_times_and_hits_by_tier() -> None:
    document = read(REPORT)
    assert list(document["arms"]) == [arm.arm for arm in REPORT.arms]
    for arm in REPORT.arms:
        said, later = document["arms"][arm.arm], arm.later_turns
        assert later.ttft_ms and later.itl_ms and later.sources and arm.goodput
        close = lambda value: pytest.approx(value, rel=1e-3)  # noqa: E731
        assert said["completed"] == said["planned"] == 30
        assert said["failed"] == said["not_sent"] == 0
        assert said["requests_per_s"] == close(arm.rates.requests_per_s)
        assert said["output_tokens_per_s"] == close(arm.rates.output_tokens_per_s)
        assert said["goodput"] == close(arm.goodput.share)
        assert said["later_turns"]["ttft_ms"] == {
            "mean": close(later.ttft_ms.mean),
            "p50": close(later.ttft_ms.p50),
            "p99": close(later.ttft_ms.p99),
        }
        assert said["later_turns"]["itl_ms"]["p50"] == close(later.itl_ms.p50)
        assert said["later_turns"]["hit_rate"] == close(later.hit_rate)
        assert said["later_turns"]["reusable_rate"] == close(later.reusable_rate)
        tiers = said["later_turns"]["hit_rate_by_tier"]
        for name in (
            "transfer_skipped",
            "device",
            "host",
            "storage",
            "storage_by_prefill",
            "storage_by_decode",
        ):
            assert tiers[name] == close(getattr(later.sources, name) / later.prompt_tokens)


def test_the_tiers_together_are_the_hits_also_of_what_the_decode_node_kept() -> None:
    (arm, *others) = REPORT.arms
    assert arm.all.sources
    kept = replace(arm.all.sources, transfer_skipped=arm.all.sources.device + 9, device=0)
    total = kept.transfer_skipped + kept.host + kept.storage
    changed = replace(arm.all, sources=kept, hit_rate=total / arm.all.prompt_tokens)
    report = replace(REPORT, arms=(replace(arm, all=changed), *others), claims=())
    said = read(report)["arms"]["on"]["all_requests"]
    tiers = said["hit_rate_by_tier"]
    places = ("transfer_skipped", "device", "host", "storage")
    assert sum(tiers[name] for name in places) == pytest.approx(said["hit_rate"], rel=1e-3)


def test_claims_and_savings_are_there_with_their_intervals() -> None:
    report = make_report(1, arms=("on", "bypassed"), conversations=10, turns=3)
    document = read(report)
    assert report.savings and document["savings"]["gpu_s"] == pytest.approx(
        report.savings.gpu_s, rel=1e-3
    )
    assert len(document["claims"]) == len(report.claims)
    first, claim = document["claims"][0], report.claims[0]
    assert (first["name"], first["arm"], first["control"]) == (claim.name, claim.arm, claim.control)
    for end in ("value", "low", "high"):
        assert first[end] == pytest.approx(getattr(claim, end), rel=1e-3)


def test_claims_of_later_turns_go_last_when_there_is_no_room() -> None:
    document = read(REPORT)  # four arms have dozens of claims
    assert "claims beyond 6" in document["left_out"]
    assert {c["name"] for c in document["claims"][:4]} == {"ttft_later_turns"}


def test_what_was_not_there_is_not_named_as_left_out() -> None:
    left_out = read(replace(REPORT, warnings=()))["left_out"]
    assert "warnings" not in left_out and "errors beyond 3 kinds" not in left_out


def test_a_failed_run_without_a_report_has_its_reason() -> None:
    ending = Ending(phase="Failed", reason="WarmUpFailed", message="connect: refused")
    assert read(None, ending) == {
        "schema": "kvloop.bench.summary/1",
        "phase": "Failed",
        "reason": "WarmUpFailed",
        "message": "connect: refused",
    }


def test_errors_are_counted_by_kind_in_each_arm() -> None:
    report = make_report(3, arms=("on",), conversations=10, turns=3, fail_share=0.3)
    (arm,) = report.arms
    assert read(report)["arms"]["on"]["errors"] == arm.errors != {}


def test_too_much_is_cut_and_the_cuts_are_named() -> None:
    kinds = {f"kind_{number}_" + "x" * 60: 1 for number in range(100)}
    arms = tuple(replace(arm, errors=kinds) for arm in REPORT.arms)
    document = read(replace(REPORT, arms=arms, warnings=("w" * 900,) * 50))
    assert "warnings" in document["left_out"] and "errors beyond 3 kinds" in document["left_out"]
    assert document["num_warnings"] == 50
    assert len(document["arms"]["on"]["errors"]) <= 3
    assert document["arms"]["on"]["later_turns"]["ttft_ms"] is not None


def test_only_as_much_is_cut_as_is_needed() -> None:
    report = make_report(1, arms=("on",), conversations=10, turns=3)
    assert "left_out" not in read(replace(report, claims=()))


@given(
    text=st.text(max_size=400),
    kinds=st.lists(st.text(max_size=80), max_size=60),
    num_warnings=st.integers(0, 30),
)
def test_whatever_a_server_says_it_is_json_within_the_limit(
    text: str, kinds: list[str], num_warnings: int
) -> None:
    arms = tuple(replace(arm, errors=dict.fromkeys(kinds, 10**12)) for arm in REPORT.arms)
    long = 20 * text
    server = replace(REPORT.server, url=long, model=long, name=long)
    report = replace(
        REPORT,
        arms=arms,
        server=server,
        title=long,
        version=long,
        started_at=long,
        warnings=(long,) * num_warnings,
        claims=tuple(replace(c, words=long) for c in 3 * REPORT.claims),
    )
    document = read(report, Ending(phase="Failed", reason="RequestsFailed", message=long))
    assert document["phase"] == "Failed"


@pytest.mark.parametrize("character", ['"', "\\", "\0", "\U0001f600", "\x7f"])
def test_the_longest_words_and_numbers_keep_within_the_limit(character: str) -> None:
    long = 5000 * character
    kinds = {f"{character * 38}{number}": 10**18 for number in range(60)}
    arms = tuple(
        replace(
            arm,
            errors=kinds,
            counts=replace(arm.counts, planned=10**18, completed=10**18, failed=10**18),
            rates=replace(arm.rates, requests_per_s=WIDE, output_tokens_per_s=WIDE),
            later_turns=widest(arm.later_turns),
            all=widest(arm.all),
        )
        for arm in REPORT.arms
    )
    report = replace(
        REPORT,
        arms=arms,
        server=replace(REPORT.server, url=long, model=long, name=long),
        title=long,
        version=long,
        started_at=long,
        duration_s=WIDE,
        warnings=(long,) * 40,
        claims=tuple(replace(claim, words=long, value=WIDE) for claim in 5 * REPORT.claims),
    )
    document = read(report, Ending(phase="Failed", reason="RequestsFailed", message=long))
    assert document["arms"]["all_miss"]["later_turns"]["ttft_ms"]["p50"] == pytest.approx(WIDE)


def test_a_shortened_text_ends_with_dots_and_has_no_control_characters() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "ab…"
    assert shortened("a\n\0b\ud800", 9) == "a  b "


def test_the_file_is_written_in_place_as_it_is_a_mount(tmp_path: Path) -> None:
    file = tmp_path / "termination-log"
    file.write_text("x" * 9000)
    before = file.stat().st_ino
    write_termination_message(REPORT, file, DONE)
    assert file.stat().st_ino == before
    assert json.loads(file.read_bytes())["phase"] == "Succeeded"

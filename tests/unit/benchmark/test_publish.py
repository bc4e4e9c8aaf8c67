"""The end of a run: every outlet gets its part, and the exit status tells of any that failed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_reports import make_report

from kvloop.benchmark.outlets.config_map import ConfigMapTarget
from kvloop.benchmark.outlets.files import read_report
from kvloop.benchmark.outlets.in_cluster import InCluster
from kvloop.benchmark.outlets.publish import Outlets, RunFailure, publish
from kvloop.benchmark.outlets.wanted import TERMINATION_VARIABLE, Wanted, open_outlets
from kvloop.benchmark.results.document import Report
from kvloop.shared_cache.errors import ConfigError

REPORT = make_report(1, arms=("on",), conversations=5, turns=2)
FAILED = make_report(3, arms=("on",), conversations=5, turns=2, fail_share=0.3)
assert FAILED.failures and FAILED.samples


def page(report: Report) -> str:
    return f"<html>{report.title}</html>"


def published(
    outcome: Report | RunFailure, outlets: Outlets, render: Any = page
) -> tuple[int, list[str]]:
    told: list[str] = []
    return publish(outcome, outlets, render, told.append), told


def ending(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_bytes())
    return {name: document[name] for name in ("phase", "reason", "message")}


def unreachable(folder: Path) -> ConfigMapTarget:
    """No certificate: fails at once, without a network."""
    cluster = InCluster(url="https://127.0.0.1:1", mount=folder)
    return ConfigMapTarget(cluster=cluster, namespace="bench", name="run-1")


def test_every_outlet_gets_the_report_and_the_status_is_0(tmp_path: Path) -> None:
    outlets = Outlets(
        json_file=tmp_path / "r.json",
        page_file=tmp_path / "r.html",
        termination_file=tmp_path / "end",
    )
    assert published(REPORT, outlets) == (0, [])
    assert read_report(tmp_path / "r.json") == REPORT
    assert (tmp_path / "r.html").read_text() == f"<html>{REPORT.title}</html>"
    assert ending(tmp_path / "end")["phase"] == "Succeeded"
    assert json.loads((tmp_path / "end").read_bytes())["arms"]["on"]["completed"] == 10


def test_the_summary_of_a_good_run_says_its_first_claim(tmp_path: Path) -> None:
    report = make_report(1, arms=("on", "bypassed"), conversations=6, turns=2)
    published(report, Outlets(termination_file=tmp_path / "end"))
    assert ending(tmp_path / "end")["message"] == report.claims[0].words


def test_without_outlets_only_the_status_is_left() -> None:
    assert published(REPORT, Outlets()) == (0, [])
    assert published(FAILED, Outlets())[0] == 1


def test_samples_are_left_out_when_they_are_not_wanted(tmp_path: Path) -> None:
    published(REPORT, Outlets(json_file=tmp_path / "r.json", with_samples=False))
    assert read_report(tmp_path / "r.json").samples == ()


def test_a_page_is_made_only_where_one_is_wanted(tmp_path: Path) -> None:
    def never(report: Report) -> str:
        raise AssertionError

    assert published(REPORT, Outlets(json_file=tmp_path / "r.json"), never) == (0, [])


def test_failed_requests_fail_the_run_but_not_its_reports(tmp_path: Path) -> None:
    outlets = Outlets(json_file=tmp_path / "r.json", termination_file=tmp_path / "end")
    assert published(FAILED, outlets)[0] == 1
    assert read_report(tmp_path / "r.json").failures == FAILED.failures
    end, first = ending(tmp_path / "end"), FAILED.failures[0]
    assert (end["phase"], end["reason"]) == ("Failed", "RequestsFailed")
    assert end["message"] == (
        f"{len(FAILED.samples)} of 10 requests were answered, {len(FAILED.failures)} failed, "
        f"1 not sent; the first: {first.kind}: {first.message}"
    )


def test_a_run_without_an_answer_has_a_reason_of_its_own(tmp_path: Path) -> None:
    empty = make_report(1, arms=("on",), conversations=5, turns=2, fail_share=1.0)
    assert published(empty, Outlets(termination_file=tmp_path / "end"))[0] == 1
    assert ending(tmp_path / "end")["reason"] == "NothingAnswered"


def test_a_run_that_was_cut_short_has_failed_and_still_reports(tmp_path: Path) -> None:
    cut = replace(REPORT, is_cut_short=True)
    outlets = Outlets(json_file=tmp_path / "r.json", termination_file=tmp_path / "end")
    assert published(cut, outlets)[0] == 1
    assert read_report(tmp_path / "r.json").is_cut_short
    assert (ending(tmp_path / "end")["phase"], ending(tmp_path / "end")["reason"]) == (
        "Failed",
        "CutShort",
    )


def test_requests_that_were_not_sent_are_in_the_message(tmp_path: Path) -> None:
    (arm,) = REPORT.arms
    lost = replace(arm, counts=replace(arm.counts, completed=7, not_sent=3))
    cut = replace(REPORT, arms=(lost,), is_cut_short=True)
    published(cut, Outlets(termination_file=tmp_path / "end"))
    assert ending(tmp_path / "end")["message"] == (
        "7 of 10 requests were answered, 0 failed, 3 not sent"
    )


def test_a_name_that_is_no_unicode_costs_no_page(tmp_path: Path) -> None:
    odd = replace(REPORT, title="odd \ud800")
    outlets = Outlets(json_file=tmp_path / "r.json", page_file=tmp_path / "r.html")
    assert published(odd, outlets) == (0, [])
    assert (tmp_path / "r.html").read_text() == "<html>odd ?</html>"


@pytest.mark.parametrize("status", [1, 2])
def test_a_run_without_a_report_leaves_its_reason_and_status(tmp_path: Path, status: int) -> None:
    failure = RunFailure(reason="WarmUpFailed", message="connect: refused", exit_status=status)
    outlets = Outlets(json_file=tmp_path / "r.json", termination_file=tmp_path / "end")
    assert published(failure, outlets) == (status, [])
    assert ending(tmp_path / "end") == {
        "phase": "Failed",
        "reason": "WarmUpFailed",
        "message": "connect: refused",
    }
    assert not (tmp_path / "r.json").exists()


def test_one_outlet_that_fails_costs_no_other_and_is_named(tmp_path: Path) -> None:
    outlets = Outlets(
        json_file=tmp_path / "none" / "r.json",
        page_file=tmp_path / "r.html",
        config_map=unreachable(tmp_path),
        termination_file=tmp_path / "end",
    )
    status, told = published(REPORT, outlets)
    assert status == 1
    assert [words.split(": ")[0] for words in told] == [
        f"--json {tmp_path}/none/r.json",
        "--config-map bench/run-1",
    ]
    assert (tmp_path / "r.html").exists()
    end = ending(tmp_path / "end")
    assert (end["phase"], end["reason"]) == ("Failed", "OutletFailed")
    assert "No such file" in end["message"] and "ca.crt" in end["message"]


def test_what_failed_before_is_not_hidden_by_an_outlet_that_fails(tmp_path: Path) -> None:
    outlets = Outlets(json_file=tmp_path / "none" / "r", termination_file=tmp_path / "end")
    published(FAILED, outlets)
    end = ending(tmp_path / "end")
    assert end["reason"] == "RequestsFailed"
    assert "were answered" in end["message"] and "--json" in end["message"]


def test_a_page_that_cannot_be_made_costs_no_report(tmp_path: Path) -> None:
    def broken(report: Report) -> str:
        raise ZeroDivisionError("no range")

    outlets = Outlets(json_file=tmp_path / "r.json", page_file=tmp_path / "r.html")
    status, told = published(REPORT, outlets, broken)
    assert (status, told) == (1, ["--html: no range"])
    assert (tmp_path / "r.json").exists() and not (tmp_path / "r.html").exists()


def test_the_termination_message_is_there_before_what_may_take_long(tmp_path: Path) -> None:
    found: list[bool] = []

    def slow(report: Report) -> str:
        found.append((tmp_path / "end").exists())
        return "<p>"

    outlets = Outlets(page_file=tmp_path / "r.html", termination_file=tmp_path / "end")
    published(REPORT, outlets, slow)
    assert found == [True]


def test_a_termination_message_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    status, told = published(REPORT, Outlets(termination_file=tmp_path / "none" / "end"))
    assert status == 1 and told[0].startswith("--termination-message")


ENVIRONMENT = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def test_outlets_are_as_the_flags_say(tmp_path: Path) -> None:
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    wanted = Wanted(
        json_file=tmp_path / "r.json",
        with_samples=False,
        page_file=tmp_path / "r.html",
        termination_file=tmp_path / "end",
        config_map="bench/run-1",
    )
    outlets = open_outlets(wanted, ENVIRONMENT, tmp_path)
    assert (outlets.json_file, outlets.page_file) == (wanted.json_file, wanted.page_file)
    assert outlets.with_samples is False and outlets.termination_file == tmp_path / "end"
    assert outlets.config_map and outlets.config_map.name == "run-1"


def test_the_environment_names_the_termination_file_unless_a_flag_does(tmp_path: Path) -> None:
    environment = {TERMINATION_VARIABLE: str(tmp_path / "a")}
    assert open_outlets(Wanted(), environment).termination_file == tmp_path / "a"
    wanted = Wanted(termination_file=tmp_path / "b")
    assert open_outlets(wanted, environment).termination_file == tmp_path / "b"
    assert open_outlets(Wanted(), {TERMINATION_VARIABLE: ""}).termination_file is None


@pytest.mark.parametrize("flag", ["--json", "--html", "--termination-message"])
def test_a_place_that_cannot_be_written_is_told_before_the_run(tmp_path: Path, flag: str) -> None:
    field = {"--json": "json_file", "--html": "page_file"}.get(flag, "termination_file")
    with pytest.raises(ConfigError, match=f"{flag} .*there is no directory"):
        open_outlets(Wanted(**{field: tmp_path / "none" / "x"}), {})
    with pytest.raises(ConfigError, match=f"{flag} .*is a directory"):
        open_outlets(Wanted(**{field: tmp_path}), {})


def test_one_file_cannot_be_both_report_and_page(tmp_path: Path) -> None:
    wanted = Wanted(json_file=tmp_path / "x", page_file=tmp_path / "." / "x")
    with pytest.raises(ConfigError, match="--json and --html both name"):
        open_outlets(wanted, {})


def test_a_mistake_in_a_flag_is_in_the_termination_message_too(tmp_path: Path) -> None:
    wanted = Wanted(config_map="run-1", termination_file=tmp_path / "end")
    with pytest.raises(ConfigError, match="works in a pod only"):
        open_outlets(wanted, {})
    end = ending(tmp_path / "end")
    assert (end["phase"], end["reason"]) == ("Failed", "BadInput")
    assert "works in a pod only" in end["message"]

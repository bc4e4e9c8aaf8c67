"""`kvloop bench compare` as CI runs it: its flags and exit statuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench_reports import make_report

from kvloop.benchmark.outlets.files import write_json
from kvloop.benchmark.results import bootstrap
from kvloop.benchmark.results.document import Report
from kvloop.cli.main import main

BASE = make_report(1, arms=("on", "all_miss"), conversations=6, turns=2)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "ROUNDS", 200)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The same run, the second with first tokens of `on` a third later."""
    return [written(tmp_path, "a", BASE), written(tmp_path, "b", slower(BASE))]


def written(folder: Path, name: str, report: Report) -> str:
    write_json(report, folder / f"{name}.json")
    return str(folder / f"{name}.json")


def slower(report: Report) -> Report:
    samples = []
    for sample in report.samples:
        more_s = sample.ttft_s / 3 if sample.arm == "on" else 0.0
        later = replace(sample, ttft_s=sample.ttft_s + more_s, ended_at=sample.ended_at + more_s)
        samples.append(later)
    return replace(report, samples=tuple(samples))


def compare(*flags: str) -> int:
    return main(["bench", "compare", *flags])


def test_the_status_is_0_if_nothing_regressed(files: list[str]) -> None:
    assert compare(files[0], files[0]) == 0


def test_a_log_has_room_for_the_names(
    files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    compare(files[0], files[0], "--names", "before-the-change,after")
    assert any(
        line.split()[:3] == ["metric", "before-the-change", "after"]
        for line in capsys.readouterr().out.splitlines()
    )


def test_the_status_is_1_if_something_regressed(files: list[str]) -> None:
    assert compare(*files) == 1


def test_only_the_arms_asked_for_decide(files: list[str]) -> None:
    assert compare(*files, "--arm", "all_miss") == 0
    assert compare(*files, "--arm", "all_miss", "--arm", "on") == 1


def test_the_tolerance_decides(files: list[str]) -> None:
    assert compare(*files, "--tolerance", "0.5") == 0


def test_a_metric_may_have_a_tolerance_of_its_own(files: list[str]) -> None:
    rules = [f"--metric={name}" for name in ("ttft_*=0.5", "e2e_*=inf", "*_rate=inf")]
    assert compare(*files, *rules) == 0
    assert compare(*files, *rules, "--metric", "ttft_mean=0.1") == 1


def test_another_load_is_refused_unless_it_is_wanted(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = written(tmp_path, "c", replace(BASE, workload=BASE.workload | {"clients": 9}))
    assert compare(files[0], other) == 2
    assert "(clients: 4 and 9)" in capsys.readouterr().err
    assert compare(files[0], other, "--different-load") == 0


def test_what_is_no_report_has_status_2(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("[]")
    assert compare(files[0], str(tmp_path / "no.json")) == 2
    assert compare(files[0], str(tmp_path / "none.json")) == 2


def test_the_comparison_is_written_where_it_is_wanted(files: list[str], tmp_path: Path) -> None:
    compare(*files, "--json", str(tmp_path / "c.json"), "--names", "before,after")
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["schema"] == "kvloop.bench.compare/1"
    assert (written["a"]["name"], written["b"]["name"]) == ("before", "after")


def test_a_comparison_that_cannot_be_written_is_told(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(*files, "--json", str(tmp_path / "none" / "c.json")) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--metric", "ttft_mean"], "must be NAME=SHARE such as ttft_p99=0.1"),
        (["--metric", "ttft_mean=-1"], "must be NAME=SHARE"),
        (["--metric", "ttft_mean=nan"], "must be NAME=SHARE"),
        (["--metric", "=1"], "must be NAME=SHARE"),
        (["--tolerance", "-0.1"], "must be a number of 0 or above"),
        (["--names", "one"], "must be two names such as kvloop,vllm"),
        (["--names", "a,b,c"], "must be two names"),
    ],
)
def test_a_wrong_flag_is_told_with_what_would_be_right(
    files: list[str], flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        compare(*files, *flags)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_metric_that_is_not_there_is_told(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(*files, "--metric", "tttf=0.1") == 2
    assert "--metric tttf: there is no such metric here; there are e2e_mean" in (
        capsys.readouterr().err
    )

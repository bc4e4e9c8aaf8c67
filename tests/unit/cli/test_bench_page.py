"""`kvloop bench page`."""

from pathlib import Path

import pytest
from bench_reports import make_report

from kvloop.benchmark.outlets.files import write_json
from kvloop.cli.main import main


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    write_json(make_report(1, arms=("on",), conversations=5, turns=2), path)
    return path


def test_a_written_report_becomes_a_page(report: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["bench", "page", str(report), str(page)]) == 0
    assert "<h1>5 conversations of 2 turns</h1>" in page.read_text()


def test_what_is_no_report_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    assert main(["bench", "page", str(wrong), str(tmp_path / "page.html")]) == 2
    assert "wrong.json: is no report of `kvloop bench`" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_a_page_never_replaces_its_own_report(
    report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = report.read_bytes()
    assert main(["bench", "page", str(report), str(report)]) == 2
    assert "report.json: is the report itself" in capsys.readouterr().err
    assert report.read_bytes() == before


def test_a_page_that_cannot_be_written_is_told(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "no" / "page.html"
    assert main(["bench", "page", str(report), str(page)]) == 1
    assert "page.html: cannot be written: No such file" in capsys.readouterr().err

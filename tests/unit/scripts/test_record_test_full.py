"""What pytest counted becomes a row of docs/test-full.md, and nothing else there changes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import record_test_full
from record_test_full import HEAD, KEPT, Outcome, describe_hardware, read_junit, row, with_row

pytest_plugins = ("pytester",)

JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests">
  <testsuite name="pytest" errors="1" failures="1" skipped="1" tests="6" time="119.5">
    <testcase classname="tests.unit.a.test_a" name="test_passes" time="1.0" />
    <testcase classname="tests.unit.a.test_a" name="test_fails" time="2.0">
      <failure message="assert 1 == 2">lines</failure>
    </testcase>
    <testcase classname="tests.unit.a.test_b" name="test_skips" time="0.0">
      <skipped type="pytest.skip" message="no nixl">why</skipped>
    </testcase>
    <testcase classname="tests.unit.a.test_b.TestIt" name="test_breaks[a|b]" time="0.1" />
    <testcase classname="tests.unit.a.test_b.TestIt" name="test_breaks[a|b]" time="0.1">
      <error message="failed on teardown">lines</error>
    </testcase>
  </testsuite>
</testsuites>
"""
WHERE = {"date": "2026-01-02 03:04", "commit": "abc", "hardware": "a CPU"}


def outcome(*failures: str, passed: int = 1) -> Outcome:
    return Outcome(passed=passed, failed=len(failures), skipped=2, seconds=90.0, failures=failures)


def document(*rows: str) -> str:
    return "\n".join(["# Runs", "", *HEAD, *rows, "", "More.", "| a | table |", ""])


def test_a_test_counts_once_as_the_worst_of_what_became_of_it() -> None:
    assert read_junit(JUNIT) == Outcome(
        passed=1,
        failed=2,
        skipped=1,
        seconds=119.5,
        failures=(
            "tests.unit.a.test_a::test_fails",
            "tests.unit.a.test_b.TestIt::test_breaks[a|b]",
        ),
    )


def test_what_pytest_writes_is_read_as_it_counts(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def broken():
            raise ValueError

        def test_one(): pass
        def test_two(): pass
        def test_three(): assert False
        def test_four(broken): pass
        def test_five(): pytest.skip("not here")
        """
    )
    pytester.runpytest_inprocess("--junitxml=out.xml", "-p", "no:cacheprovider")
    found = read_junit((pytester.path / "out.xml").read_text())
    assert (found.passed, found.failed, found.skipped) == (2, 2, 1)
    assert [name.partition("::")[2] for name in found.failures] == ["test_three", "test_four"]
    assert found.seconds > 0


@pytest.mark.parametrize(("text", "words"), [("", "no XML"), ("<html/>", "no <testsuite>")])
def test_what_is_no_report_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_junit(text)


def test_runs_one_after_the_other_add_up() -> None:
    both = outcome("a", passed=3) + outcome("b", passed=4)
    assert both == Outcome(passed=7, failed=2, skipped=4, seconds=180.0, failures=("a", "b"))


def test_a_row_has_date_commit_numbers_minutes_hardware_and_what_failed() -> None:
    failed = row(outcome("tests.a.test_b::test_c[x|y]"), **WHERE)
    assert failed == ("| 2026-01-02 03:04 | abc | 1 | 1 | 2 | 2 | a CPU | test_b::test_c[x\\|y] |")
    assert row(outcome(), **WHERE).endswith("| - |")


def test_of_many_failures_a_row_names_some_and_tells_how_many_more() -> None:
    line = row(outcome(*(f"tests.test_a::test_{n}" for n in range(8))), **WHERE)
    assert "test_a::test_4, and 3 more |" in line and "test_5" not in line


def test_the_newest_row_is_first_and_all_else_stays() -> None:
    assert with_row(document("| old |"), "| new |") == document("| new |", "| old |")
    assert with_row(document(), "| new |") == document("| new |")


def test_old_rows_go() -> None:
    rows = [f"| {n} |" for n in range(KEPT)]
    assert with_row(document(*rows), "| new |") == document("| new |", *rows[:-1])


def test_a_document_without_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="must hold the table"):
        with_row("# Runs\n", "| new |")


def test_hardware_is_cores_cpu_and_gpus() -> None:
    cpuinfo = "processor\t: 0\nmodel name\t: Some CPU\nprocessor\t: 1\nmodel name\t: Some CPU\n"
    assert describe_hardware(2, cpuinfo, []) == "2 cores, Some CPU, no GPU"
    assert describe_hardware(8, "", ["A GPU", "A GPU"]) == "8 cores, unknown CPU, A GPU, A GPU"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Path) -> int:
    monkeypatch.setattr(
        sys, "argv", ["record_test_full.py", "--commit", "abc-dirty", *map(str, arguments)]
    )
    return record_test_full.main()


def test_the_script_writes_the_sum_of_its_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    doc, junit = tmp_path / "doc.md", tmp_path / "a.xml"
    doc.write_text(document())
    junit.write_text(JUNIT)
    assert run(monkeypatch, junit, junit, Path("--doc"), doc) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert doc.read_text() == document(line) and "| abc-dirty | 2 | 4 | 2 | 4 |" in line


def test_a_report_that_is_missing_is_said_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    doc = tmp_path / "doc.md"
    doc.write_text(document())
    assert run(monkeypatch, tmp_path / "none.xml", Path("--doc"), doc) == 1
    assert "not recorded" in capsys.readouterr().err and doc.read_text() == document()


def test_the_documents_table_is_the_one_that_is_written() -> None:
    assert "\n".join(HEAD) + "\n" in record_test_full.DOC.read_text()

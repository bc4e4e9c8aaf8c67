"""A test that fails twice fails; one that then passes alone is named as unsteady."""

from __future__ import annotations

from pathlib import Path

import pytest
import run_tests

FLAKY = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range({many}))
def test_unsteady(number):
    seen = Path(f"seen{{number}}")
    fails, _ = not seen.exists(), seen.touch()
    assert not fails

def test_steady():
    pass
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return tmp_path


def run(directory: Path, code: str) -> int:
    (directory / "test_it.py").write_text(code)
    return run_tests.main(["some", "-q", "-p", "no:xdist", "test_it.py"])


def test_a_test_that_passes_alone_is_named(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(directory, FLAKY.format(many=1)) == 0
    told = capfd.readouterr().out
    assert "UNSTEADY: test_it.py::test_unsteady[0] failed among others and passed alone" in told
    assert (directory / "build/tests/some/unsteady.txt").read_text().endswith("[0]\n")
    assert "1 failed" in told and "1 passed in" in told


def test_a_test_that_fails_twice_fails(directory: Path) -> None:
    assert run(directory, "def test_it(): assert False") == 1
    assert not (directory / "build/tests/some/unsteady.txt").exists()


def test_more_than_three_failures_are_not_tried_again(directory: Path) -> None:
    assert run(directory, FLAKY.format(many=4)) == 1


def test_an_error_of_collection_fails(directory: Path) -> None:
    assert run(directory, "import nothing_of_this_name") != 0


def test_without_failures_nothing_runs_twice(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(directory, "def test_it(): pass") == 0
    assert "once more" not in capfd.readouterr().out

"""What is left of a run whose output nobody takes."""

import io
from pathlib import Path

import pytest
from bench_reports import MadeUpLoad, Shape, make_report
from rich.console import Console

from kvloop.benchmark import run
from kvloop.benchmark.outlets.files import read_report
from kvloop.benchmark.outlets.publish import Outlets
from kvloop.benchmark.progress import LiveProgress

REPORT = make_report(1, arms=("on",), conversations=3, turns=2)


def test_a_table_that_cannot_be_shown_costs_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    def ended(coroutine: object) -> object:
        coroutine.close()  # type: ignore[attr-defined]
        return REPORT

    monkeypatch.setattr(run, "run_loop", ended)
    monkeypatch.setattr(run, "show", gone)
    config = run.RunConfig(url="http://127.0.0.1:1", outlets=Outlets(json_file=tmp_path / "r.json"))
    with pytest.raises(BrokenPipeError):
        run.run_bench(config, MadeUpLoad(shape=Shape()))
    assert read_report(tmp_path / "r.json") == REPORT


@pytest.mark.parametrize("error", [OSError(28, "No space left"), SystemExit(1)])
def test_a_log_that_nobody_reads_does_not_end_the_run(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rich exits the process when a pipe's reader is gone (`| head -1`)."""
    console, tries = Console(file=io.StringIO()), []

    def fails(*_: object, **__: object) -> None:
        tries.append(1)
        raise error

    monkeypatch.setattr(console, "print", fails)
    with LiveProgress(console, MadeUpLoad(shape=Shape()), ()):
        pass
    assert tries

"""The flags of the loads that are read from files reach the load that is run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from made_traces import request, write_lines, write_trace

from kvloop.benchmark.driver.api import ServedModel
from kvloop.benchmark.workloads.dataset import Dataset, DatasetOptions
from kvloop.benchmark.workloads.trace import Trace, TraceOptions
from kvloop.cli.bench import common, dataset, trace
from kvloop.shared_cache.errors import ConfigError

URL = "http://127.0.0.1:8000"
SERVED = ServedModel(name="m", context=4096)


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    chat = [request(number, 0, *range(1, 2 + number)) for number in range(6)]
    return write_trace(tmp_path / "trace", [*chat, request(9, 0, 20)])


@pytest.fixture
def dataset_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "chats", ['{"turns": ["a", "b"]}'] * 3)


def parsed(module: ModuleType, *flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_to(parser.add_subparsers())
    name = module.__name__.rpartition(".")[2]
    return parser.parse_args([name, URL, *flags])


def load_of(
    module: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    *flags: str,
    served: ServedModel = SERVED,
) -> Any:
    """What a command line hands to the run, made for a server that says its context."""
    loads: list[Any] = []

    def run(args: argparse.Namespace, workload: Any) -> int:
        loads.append(workload(served))
        return 0

    monkeypatch.setattr(common, "run", run)
    args = parsed(module, *flags)
    assert args.run(args) == 0
    return loads[0]


@pytest.mark.parametrize(
    ("flag", "text", "field", "value"),
    [
        ("--limit", "3", "limit", 3),
        ("--choose", "first", "choose", "first"),
        ("--min-reuse", "0.2", "min_reuse", 0.2),
        ("--longest", "2000", "longest", 2000),
        ("--time-scale", "4", "time_scale", 4.0),
        ("--context", "900", "context", 900),
        ("--block-tokens", "16", "block_tokens", 16),
        ("--max-output", "5", "max_output", 5),
        ("--strict", None, "is_strict", True),
        ("--text", None, "content", "text"),
        ("--id-range", "5:90", "id_range", (5, 90)),
        ("--seed", "7", "seed", 7),
    ],
)
def test_a_flag_of_a_trace_reaches_it(
    flag: str,
    text: str | None,
    field: str,
    value: Any,
    trace_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = (flag,) if text is None else (flag, text)
    flags += ("--limit", "4") if flag == "--min-reuse" else ()
    load = load_of(trace, monkeypatch, "--trace", str(trace_file), *flags)
    assert isinstance(load, Trace)
    assert getattr(load.options, field) == value != getattr(TraceOptions(trace=trace_file), field)


def test_without_flags_a_trace_is_as_its_class_says_and_all_its_conversations_are_held(
    trace_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--trace", str(trace_file))
    options = load_of(trace, monkeypatch, *flags).options
    assert options == TraceOptions(trace=trace_file, context=4096)
    assert parsed(trace, *flags).clients is None
    assert parsed(trace, *flags, "--clients", "3").clients == 3


def test_a_server_that_does_not_say_its_context_needs_the_flag(
    trace_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = ServedModel(name="m", context=None)
    with pytest.raises(ConfigError, match="--context: the server does not say"):
        load_of(trace, monkeypatch, "--trace", str(trace_file), served=silent)


@pytest.mark.parametrize(
    ("flag", "text", "field", "value"),
    [
        ("--limit", "2", "limit", 2),
        ("--shuffle", None, "is_shuffled", True),
        ("--turns", "1", "turns", 1),
        ("--max-message-chars", "9", "max_message_chars", 9),
        ("--answers", "recorded", "answers", "recorded"),
        ("--output-length", "5", "output_length", 5),
        ("--output-length", "recorded", "output_length", "recorded"),
        ("--max-output", "5", "max_output", 5),
        ("--strict", None, "is_strict", True),
        ("--seed", "7", "seed", 7),
    ],
)
def test_a_flag_of_a_dataset_reaches_it(
    flag: str,
    text: str | None,
    field: str,
    value: Any,
    dataset_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = (flag,) if text is None else (flag, text)
    load = load_of(dataset, monkeypatch, "--dataset", str(dataset_file), *flags)
    assert isinstance(load, Dataset)
    default = DatasetOptions(dataset=dataset_file)
    assert getattr(load.options, field) == value != getattr(default, field)


def test_without_flags_a_dataset_is_as_its_class_says(
    dataset_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = load_of(dataset, monkeypatch, "--dataset", str(dataset_file))
    assert load.options == DatasetOptions(dataset=dataset_file)


@pytest.mark.parametrize(
    ("module", "flags", "words"),
    [
        (trace, (), "--trace"),
        (trace, ("--trace", "t", "--choose", "last"), "--choose"),
        (trace, ("--trace", "t", "--time-scale", "0"), "--time-scale: must be a number above 0"),
        (trace, ("--trace", "t", "--limit", "0"), "--limit"),
        (dataset, (), "--dataset"),
        (dataset, ("--dataset", "d", "--answers", "mine"), "--answers"),
        (
            dataset,
            ("--dataset", "d", "--output-length", "long"),
            "--output-length: must be a whole number of 1 or above, got 'long'; or `recorded`",
        ),
    ],
)
def test_a_wrong_flag_is_named(
    module: ModuleType, flags: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(module, *flags)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ("--time-scale", "2", "--rate", "3"),
        ("--min-reuse", "0.2"),
        ("--min-reuse", "0.2", "--limit", "3", "--choose", "first"),
        ("--id-range", "5:90", "--text"),
    ],
)
def test_a_flag_that_would_change_nothing_is_refused_and_the_message_says_so(
    flags: tuple[str, ...], trace_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "message"
    with pytest.raises(ConfigError, match=flags[0]):
        load_of(
            trace,
            monkeypatch,
            *("--trace", str(trace_file), "--termination-message", str(told), *flags),
        )
    assert flags[0] in json.loads(told.read_text())["message"]

"""The flags of the synthetic loads reach the load that is run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kvloop.benchmark.driver.api import ServedModel
from kvloop.benchmark.workloads.agent import Agent
from kvloop.benchmark.workloads.long_doc import LongDocument
from kvloop.benchmark.workloads.multi_turn import MultiTurn
from kvloop.cli.bench import agent, common, long_doc, multi_turn
from kvloop.shared_cache.errors import ConfigError

URL = "http://127.0.0.1:8000"


def load_of(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *flags: str) -> Any:
    """What a command line hands to the run."""
    loads: list[Any] = []
    model = ServedModel(name="m", context=None)
    monkeypatch.setattr(common, "run", lambda args, load: loads.append(load(model)) or 0)
    parser = argparse.ArgumentParser()
    module.add_to(parser.add_subparsers())
    name = module.__name__.rpartition(".")[2].replace("_", "-")
    args = parser.parse_args([name, URL, *flags])
    assert args.run(args) == 0
    return loads[0]


@pytest.mark.parametrize(
    ("module", "kind"), [(multi_turn, MultiTurn), (long_doc, LongDocument), (agent, Agent)]
)
def test_without_flags_a_load_is_as_its_class_says(
    module: ModuleType, kind: type[MultiTurn], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_of(module, monkeypatch) == kind()


_EVERY = [
    ("--seed", "7", "seed", 7),
    ("--id-range", "5:9", "id_range", (5, 9)),
    ("--text", None, "content", "text"),
    ("--token-ids", None, "content", "token-ids"),
    ("--output-length", "3:9", "output_length", (3, 9)),
]
_MULTI_TURN = [
    ("--conversations", "20", "num_conversations", 20),
    ("--clients", "3", "num_conversations", 3),
    ("--turns", "2:5", "turns", (2, 5)),
    ("--request-length", "100:300", "request_length", (100, 300)),
    ("--first-length", "900", "first_length", 900),
    ("--system-prompts", "3", "system_prompts", 3),
    ("--system-length", "40:80", "system_length", (40, 80)),
    ("--branches", "2", "branches", 2),
    ("--branch-turn", "2", "branch_turn", 2),
    ("--think-s", "2.5", "think_s", 2.5),
]
_LONG_DOC = [
    ("--documents", "7", "documents", 7),
    ("--document-length", "300:600", "document_length", (300, 600)),
    ("--questions", "2", "questions", 2),
    ("--question-length", "8", "question_length", 8),
    ("--apart", None, "asked", "apart"),
    ("--think-s", "1:2", "think_s", (1.0, 2.0)),
]
_AGENT = [
    ("--agents", "9", "agents", 9),
    ("--steps", "3:8", "steps", (3, 8)),
    ("--tools-length", "70", "tools_length", 70),
    ("--task-length", "5:9", "task_length", (5, 9)),
    ("--result-length", "33", "result_length", 33),
    ("--tool-s", "0.5:3", "tool_s", (0.5, 3.0)),
    ("--subagents", "2", "subagents", 2),
    ("--subagent-step", "3", "subagent_step", 3),
]


_WITH = {
    "--system-length": ["--system-prompts", "1"],
    "--branch-turn": ["--branches", "1"],
    "--subagent-step": ["--subagents", "1"],
}
"""What these flags need to change anything."""


@pytest.mark.parametrize(
    ("module", "flag", "text", "field", "value"),
    [(multi_turn, *row) for row in _EVERY + _MULTI_TURN]
    + [(long_doc, *row) for row in _EVERY + _LONG_DOC]
    + [(agent, *row) for row in _EVERY + _AGENT],
)
def test_a_flag_sets_its_field(
    module: ModuleType,
    flag: str,
    text: str | None,
    field: str,
    value: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = [flag] if text is None else [flag, text]
    given += _WITH.get(flag, [])
    assert getattr(load_of(module, monkeypatch, *given), field) == value


def test_a_load_too_long_for_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ServedModel(name="m", context=100)
    monkeypatch.setattr(common, "run", lambda args, load: load(model))
    parser = argparse.ArgumentParser()
    multi_turn.add_to(parser.add_subparsers())
    args = parser.parse_args(["multi-turn", URL])
    with pytest.raises(ConfigError, match="1410 tokens, the model takes 100"):
        args.run(args)


def test_a_tool_may_speak_for_itself_in_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_of(agent, monkeypatch, "--text", "--tool-role", "tool").tool_role == "tool"


def test_the_number_of_conversations_goes_before_that_of_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = load_of(multi_turn, monkeypatch, "--clients", "4", "--conversations", "20")
    assert load.num_conversations == 20


@pytest.mark.parametrize(
    ("module", "flags", "needed"),
    [
        (multi_turn, ("--system-length", "9"), "--system-prompts"),
        (multi_turn, ("--branch-turn", "2"), "--branches"),
        (agent, ("--subagent-step", "2"), "--subagents"),
        (long_doc, ("--id-range", "5:9", "--text"), "--text"),
    ],
)
def test_a_flag_that_would_change_nothing_is_refused(
    module: ModuleType,
    flags: tuple[str, ...],
    needed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=f"{flags[0]} changes nothing with.*{needed}"):
        load_of(module, monkeypatch, *flags)


def test_the_termination_message_says_which_flag_of_a_load_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "message"
    flags = ("--branches", "1", "--branch-turn", "7", "--termination-message", str(told))
    with pytest.raises(ConfigError, match="--branch-turn"):
        load_of(multi_turn, monkeypatch, *flags)
    assert "--branch-turn" in json.loads(told.read_text())["message"]

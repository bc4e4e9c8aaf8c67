"""Chats of a file as a load."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kvloop.benchmark.workloads import dataset_lines
from kvloop.benchmark.workloads import lines as lines_of_files
from kvloop.benchmark.workloads.dataset import DEFAULT_OUTPUT, Dataset, DatasetOptions, load_dataset
from kvloop.benchmark.workloads.plan import num_requests
from kvloop.shared_cache.errors import ConfigError

QUESTIONS = Path(__file__).parents[2] / "data" / "mt_bench_excerpt.jsonl"


def chat(name: str, *answers: str) -> dict[str, Any]:
    """One turn more than there are answers."""
    messages = []
    for number, answer in enumerate(answers):
        messages += [
            {"role": "user", "content": f"{name} {number}"},
            {"role": "assistant", "content": answer},
        ]
    messages.append({"role": "user", "content": f"{name} end"})
    return {"messages": messages}


MIXED = [
    chat("a", "one", "t" * 90),
    {"conversations": [{"from": "human", "value": "b"}, {"from": "gpt", "value": "yes"}]},
    {"turns": ["c", "d", "e"]},
    ["f", "g"],
    {"question": "h"},
]


def write(path: Path, *values: Any) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    return write(tmp_path / "mixed.jsonl", *MIXED)


def load(path: Path, **options: Any) -> Dataset:
    return load_dataset(DatasetOptions(dataset=path, **options))


def words(loaded: Dataset) -> list[list[str]]:
    return [
        [loaded.say(number, turn + 1).messages[-1].content for turn in range(len(one.turns))]
        for number, one in enumerate(loaded.conversations)
    ]


MIXED_WORDS = [["a 0", "a 1", "a end"], ["b"], ["c", "d", "e"], ["f", "g"], ["h"]]


def test_each_line_is_a_conversation_in_its_own_form(mixed: Path) -> None:
    loaded = load(mixed)
    assert words(loaded) == MIXED_WORDS
    assert (loaded.kind, loaded.content, loaded.ceiling) == ("dataset", "text", None)
    assert not loaded.warnings and not loaded.say(0, 1).is_whole


@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_may_be_one_array(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "array.json"
    path.write_text("\n" + json.dumps(MIXED, indent=indent) + "\n\n")
    assert words(load(path)) == MIXED_WORDS


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("value", [["f", "g"], chat("f")["messages"]])
def test_an_array_that_is_one_chat_is_one(tmp_path: Path, value: Any, indent: int | None) -> None:
    path = tmp_path / "array.json"
    path.write_text(json.dumps(value, indent=indent))
    assert len(load(path).conversations) == 1


def test_lines_that_are_lists_are_chats_each(tmp_path: Path) -> None:
    path = write(tmp_path / "lists", ["a", "b"], chat("c")["messages"])
    assert words(load(path)) == [["a", "b"], ["c end"]]


def test_recorded_answers_go_into_the_history_only_where_asked_for(mixed: Path) -> None:
    assert {load(mixed).say(0, turn).answer for turn in (1, 2, 3)} == {None}
    recorded = load(mixed, answers="recorded")
    assert [recorded.say(0, turn).answer for turn in (1, 2, 3)] == ["one", "t" * 90, None]
    (warning,) = recorded.warnings
    assert warning.startswith("7 of 10 turns have no recorded answer")


def test_answers_are_as_long_as_asked_for_or_as_the_recorded_ones(mixed: Path) -> None:
    def lengths(**options: Any) -> list[int]:
        return [turn.output_length for turn in load(mixed, **options).conversations[0].turns]

    assert lengths(output_length=7) == [7, 7, 7]
    assert lengths(output_length="recorded") == [1, 23, DEFAULT_OUTPUT]
    assert lengths(output_length="recorded", max_output=20) == [1, 20, 20]
    assert lengths() == [DEFAULT_OUTPUT] * 3


def test_the_limit_takes_the_first_and_does_not_read_on(tmp_path: Path) -> None:
    path = write(tmp_path / "many", *MIXED[:2])
    path.write_bytes(path.read_bytes() + b"{")
    loaded = load(path, limit=2)
    assert words(loaded) == MIXED_WORDS[:2] and not loaded.warnings
    (broken, fewer) = load(path, limit=3).warnings
    assert "1 left out: line 3: " in broken
    assert fewer == "the dataset gave 2 chats, and --limit asked for 3"


def test_a_shuffle_draws_from_the_whole_file_under_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "many", *({"prompt": str(number)} for number in range(200)))
    drawn = [words(load(path, limit=20, is_shuffled=True, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    numbers = [int(one) for (one,) in drawn[0]]
    assert len(set(numbers)) == 20 and max(numbers) > 100
    assert numbers != sorted(numbers)
    every = [int(one) for (one,) in words(load(path, is_shuffled=True))]
    assert sorted(every) == list(range(200)) != every


def test_every_chat_is_as_likely_to_be_drawn(tmp_path: Path) -> None:
    path = write(tmp_path / "many", *({"prompt": str(number)} for number in range(8)))
    drawn = Counter(
        one
        for seed in range(400)
        for (one,) in words(load(path, limit=2, is_shuffled=True, seed=seed))
    )
    # 100 each, and 8.7 is the standard deviation
    assert len(drawn) == 8 and all(60 < times < 140 for times in drawn.values())


def test_chats_may_be_cut_to_some_turns_and_messages_to_some_characters(mixed: Path) -> None:
    assert [len(one.turns) for one in load(mixed, turns=2).conversations] == [2, 1, 2, 2, 1]
    cut = load(mixed, max_message_chars=2, answers="recorded")
    assert words(cut)[0] == ["a ", "a ", "a "]
    assert cut.say(0, 2).answer == "tt"


def test_the_warm_up_says_what_no_chat_says(mixed: Path) -> None:
    loaded = load(mixed)
    first, second = (loaded.say(number, 1).messages[0].content for number in (-1, -2))
    assert first != second and first == load(mixed).say(-1, 1).messages[0].content
    assert first != load(mixed, seed=1).say(-1, 1).messages[0].content
    assert len(first.split()) == 50


def test_the_report_says_what_the_flags_came_to(mixed: Path) -> None:
    options = {"limit": 4, "turns": 2, "max_message_chars": 60, "max_output": 9, "seed": 3}
    loaded = load(mixed, **options, answers="recorded", output_length="recorded")
    assert msgspec.json.decode(msgspec.json.encode(loaded.describe())) == {
        "kind": "dataset",
        "content": "text",
        "dataset": "mixed.jsonl",
        "answers": "recorded",
        "shuffle": False,
        "output_length": "recorded",
        "strict": False,
        **options,
        "requests": num_requests(loaded),
        "forms": {"turns": 2, "openai": 1, "sharegpt": 1},
        "recorded_answers": 3,
        "message_chars": 11,
        "longest_message_chars": 3,
        "cut_messages": 0,
        "dropped_lines": 0,
    }
    assert load(mixed, max_message_chars=2).describe()["cut_messages"] == 3


def test_broken_chats_are_counted_and_named_or_end_a_strict_run(tmp_path: Path) -> None:
    path = write(tmp_path / "chats", MIXED[0], {"nothing": 1}, MIXED[2], {"prompt": ""})
    path.write_bytes(path.read_bytes() + b'{"prompt": "\xff"}\n')
    loaded = load(path)
    assert num_requests(loaded) == 6 and loaded.describe()["dropped_lines"] == 3
    (warning,) = loaded.warnings
    assert warning.startswith("chats: 3 left out: line 2: has none of")
    assert "line 4: message 1 is empty; line 5: " in warning
    with pytest.raises(ConfigError, match=r"--dataset .*chats line 2: has none of"):
        load(path, is_strict=True)


def test_broken_entries_of_an_array_are_named_by_their_number(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    path.write_text(json.dumps([MIXED[0], {"turns": 5}], indent=1))
    assert "array.json: 1 left out: entry 2: `turns`" in load(path).warnings[0]


def test_an_array_that_breaks_off_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    path.write_text(json.dumps(MIXED)[:-5])
    with pytest.raises(ConfigError, match="has no good chat; line 1: "):
        load(path)


def test_a_broken_first_list_does_not_hide_the_lines_below(tmp_path: Path) -> None:
    path = write(tmp_path / "lists", ["a"], ["b"])
    path.write_text('["broken",\n' + path.read_text())
    loaded = load(path)
    assert words(loaded) == [["a"], ["b"]] and "line 1: " in loaded.warnings[0]


def test_a_file_that_is_empty_not_there_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="has no good chat; it is empty"):
        load(write(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"--dataset .*nowhere: No such file"):
        load(tmp_path / "nowhere")
    path = write(tmp_path / "array", MIXED)
    monkeypatch.setattr(dataset_lines, "LARGEST_ARRAY", 100)
    with pytest.raises(ConfigError, match="give one chat a line"):
        load(path)
    monkeypatch.setattr(lines_of_files, "LONGEST_LINE", 64)
    with pytest.raises(ConfigError, match="line 1 has 64 bytes or more"):
        load(write(tmp_path / "long", chat("a" * 90)))


def test_real_questions_are_held_as_they_were_asked() -> None:
    loaded = load(QUESTIONS)
    asked = [json.loads(line)["turns"] for line in QUESTIONS.read_text().splitlines()]
    assert words(loaded) == asked and len(asked) == 60


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("limit", "--limit"),
        ("turns", "--turns"),
        ("max_message_chars", "--max-message-chars"),
        ("output_length", "--output-length"),
        ("max_output", "--max-output"),
    ],
)
def test_a_wrong_value_names_its_flag(field: str, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        replace(DatasetOptions(dataset=Path("d")), **{field: 0})  # type: ignore[arg-type]

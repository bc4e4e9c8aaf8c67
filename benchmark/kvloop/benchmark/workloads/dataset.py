"""Chats that people had, held again with a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

from kvloop.benchmark.workloads.dataset_forms import Chat, ChatTurn
from kvloop.benchmark.workloads.dataset_lines import FLAG, read_chats
from kvloop.benchmark.workloads.lines import Problems
from kvloop.benchmark.workloads.plan import Ceiling, Content, Conversation, Message, Said, Turn
from kvloop.benchmark.workloads.words import draw_text, new_random
from kvloop.shared_cache.errors import ConfigError

Answers = Literal["server", "recorded"]

DEFAULT_OUTPUT = 128
"""Tokens; also of a turn without a recorded answer where lengths are as recorded."""
_WARM_UP_WORDS = 50
_TOKEN_CHARS = 4
"""Characters of a token in common English; only the server knows its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """Fields are the command's flags; raises ConfigError naming the one that is wrong."""

    dataset: Path
    answers: Answers = "server"
    """Whose answers the next turns' history holds."""
    limit: int | None = None
    """Conversations; None: all."""
    is_shuffled: bool = False
    """Conversations are drawn from the whole file, in drawn order; else the first as they stand."""
    turns: int | None = None
    """Of each conversation at most."""
    max_message_chars: int | None = None
    """Longer messages and recorded answers are cut."""
    output_length: int | Literal["recorded"] = DEFAULT_OUTPUT
    """Tokens of each answer; "recorded": as the recorded one, four characters a token."""
    max_output: int | None = None
    is_strict: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("limit", "turns", "max_message_chars", "output_length", "max_output"):
            value = getattr(self, name)
            if isinstance(value, int) and value <= 0:
                raise ConfigError(f"--{name.replace('_', '-')} must be above 0, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A `Workload`: each chat of the file is a conversation, always as text."""

    options: DatasetOptions
    chats: tuple[Chat, ...]
    conversations: tuple[Conversation, ...]
    about: dict[str, Any]
    """What the flags came to."""
    warnings: tuple[str, ...]
    """What a reader of the report must know."""

    @property
    def kind(self) -> str:
        return "dataset"

    @property
    def content(self) -> Content:
        return "text"

    @property
    def ceiling(self) -> Ceiling | None:
        """The server alone knows how many tokens its words are."""
        return None

    def say(self, conversation: int, turn: int) -> Said:
        """What a person said; negative conversations warm up with words of their own."""
        if conversation < 0:
            words = draw_text(self.options.seed, f"warm-up/{conversation}/{turn}", _WARM_UP_WORDS)
            return Said(messages=(Message(role="user", content=words),))
        said = self.chats[conversation].turns[turn - 1]
        is_recorded = self.options.answers == "recorded"
        return Said(messages=said.messages, answer=said.recorded if is_recorded else None)

    def describe(self) -> dict[str, Any]:
        """The flags and what they came to."""
        options = self.options
        return {
            "kind": self.kind,
            "content": self.content,
            "dataset": options.dataset.name,
            "answers": options.answers,
            "limit": options.limit,
            "shuffle": options.is_shuffled,
            "turns": options.turns,
            "max_message_chars": options.max_message_chars,
            "output_length": options.output_length,
            "max_output": options.max_output,
            "strict": options.is_strict,
            "seed": options.seed,
            **self.about,
        }


def load_dataset(options: DatasetOptions) -> Dataset:
    """Read and choose; raises ConfigError naming the flag."""
    problems = Problems(flag=FLAG, path=options.dataset, is_strict=options.is_strict)
    chosen = _choose(read_chats(options.dataset, problems), options)
    if not chosen:
        raise ConfigError(
            f"{FLAG} {options.dataset} has no good chat; {problems.words or 'it is empty'}"
        )
    chats = tuple(_shortened(chat, options) for chat in chosen)
    return Dataset(
        options=options,
        chats=chats,
        conversations=tuple(_conversation(chat, options) for chat in chats),
        about=_about(chosen, chats, problems),
        warnings=problems.warnings + _warnings(options, chats),
    )


def _choose(chats: Iterable[Chat], options: DatasetOptions) -> list[Chat]:
    if not options.is_shuffled:
        return list(islice(chats, options.limit))
    draw = new_random(options.seed, "shuffle")
    kept = list(chats) if options.limit is None else _reservoir(chats, options.limit, draw)
    draw.shuffle(kept)
    return kept


def _reservoir(chats: Iterable[Chat], size: int, draw: Random) -> list[Chat]:
    """`size` of them, each as likely as any other, holding no more than that at any time."""
    kept: list[Chat] = []
    for number, chat in enumerate(chats):
        if number < size:
            kept.append(chat)
        elif (place := draw.randrange(number + 1)) < size:
            kept[place] = chat
    return kept


def _shortened(chat: Chat, options: DatasetOptions) -> Chat:
    turns = chat.turns[: options.turns]
    return replace(chat, turns=tuple(_cut(turn, options.max_message_chars) for turn in turns))


def _cut(turn: ChatTurn, chars: int | None) -> ChatTurn:
    messages = tuple(replace(one, content=one.content[:chars]) for one in turn.messages)
    return ChatTurn(messages=messages, recorded=turn.recorded and turn.recorded[:chars])


def _conversation(chat: Chat, options: DatasetOptions) -> Conversation:
    return Conversation(
        turns=tuple(Turn(output_length=_output_length(turn, options)) for turn in chat.turns)
    )


def _output_length(turn: ChatTurn, options: DatasetOptions) -> int:
    length = options.output_length
    if length == "recorded":
        chars = len(turn.recorded or "")
        length = -(-chars // _TOKEN_CHARS) or DEFAULT_OUTPUT
    return length if options.max_output is None else min(length, options.max_output)


def _about(chosen: Sequence[Chat], chats: Sequence[Chat], problems: Problems) -> dict[str, Any]:
    turns = [turn for chat in chats for turn in chat.turns]
    messages = [one for turn in turns for one in turn.messages]
    return {
        "requests": len(turns),
        "forms": dict(Counter(chat.form for chat in chats).most_common()),
        "recorded_answers": sum(turn.recorded is not None for turn in turns),
        "message_chars": sum(len(one.content) for one in messages),
        "longest_message_chars": max(len(one.content) for one in messages),
        "cut_messages": sum(map(_num_cut, chosen, chats)),
        "dropped_lines": problems.num,
    }


def _num_cut(whole: Chat, chat: Chat) -> int:
    """Messages of the turns that are held."""
    pairs = zip(whole.turns, chat.turns, strict=False)
    return sum(
        a != b for one, cut in pairs for a, b in zip(one.messages, cut.messages, strict=True)
    )


def _warnings(options: DatasetOptions, chats: Sequence[Chat]) -> tuple[str, ...]:
    found = []
    if options.limit is not None and len(chats) < options.limit:
        found.append(f"the dataset gave {len(chats)} chats, and --limit asked for {options.limit}")
    turns = [turn for chat in chats for turn in chat.turns]
    missing = sum(turn.recorded is None for turn in turns)
    if options.answers == "recorded" and missing:
        found.append(
            f"{missing} of {len(turns)} turns have no recorded answer; the server's own was used"
        )
    return tuple(found)

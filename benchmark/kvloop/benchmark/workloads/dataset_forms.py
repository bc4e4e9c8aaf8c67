"""The forms in which chats are written down, each read as turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from kvloop.benchmark.workloads.plan import Message, Speaker

Form = Literal["sharegpt", "openai", "turns", "prompt"]

_SPEAKERS: Mapping[str, Speaker] = {
    **dict.fromkeys(("user", "human", "tool", "function", "observation"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
"""A tool's result is said by the user: few templates take it from a tool without its call."""
_BETWEEN = "\n\n"


class BadChat(ValueError):
    """A value is no chat that can be sent; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """One request."""

    messages: tuple[Message, ...]
    """What is said since the answer before."""
    recorded: str | None
    """What was answered then; None where the file does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """One conversation; `turns` has one or more."""

    form: Form
    turns: tuple[ChatTurn, ...]


def parse_chat(value: object) -> Chat:
    """The chat that a JSON value is, by its form; raises BadChat."""
    if isinstance(value, list):
        return _of_list(value)
    if not isinstance(value, dict):
        raise BadChat(f"is neither an object nor a list, but {_shown(value)}")
    if "conversations" in value:
        return _chat("sharegpt", _messages(value["conversations"], "from", "value"))
    if "messages" in value:
        return _chat("openai", _messages(value["messages"], "role", "content"))
    if "turns" in value:
        return _chat("turns", _said(value["turns"], "turns"))
    for name in ("prompt", "question"):
        if name in value:
            return _chat("prompt", _said([value[name]], name))
    raise BadChat("has none of `conversations`, `messages`, `turns`, `prompt`, `question`")


def is_chat_of_list(values: Sequence[object]) -> bool:
    """Whether a list is one chat: strings, or messages; else it is a list of chats."""
    return bool(values) and all(
        isinstance(one, str) or (isinstance(one, dict) and ("role" in one or "from" in one))
        for one in values
    )


def _of_list(values: list[Any]) -> Chat:
    if not is_chat_of_list(values):
        raise BadChat("is a list of neither strings nor messages")
    if all(isinstance(one, str) for one in values):
        return _chat("turns", _said(values, "turns"))
    if isinstance(values[0], dict) and "from" in values[0]:
        return _chat("sharegpt", _messages(values, "from", "value"))
    return _chat("openai", _messages(values, "role", "content"))


def _said(values: object, name: str) -> list[Message]:
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise BadChat(f"`{name}` is not made of strings")
    return [
        Message(role="user", content=_said_by("user", n, one)) for n, one in enumerate(values, 1)
    ]


def _messages(values: object, role: str, content: str) -> list[Message]:
    if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
        raise BadChat("its messages are not a list of objects")
    return [_message(number, one, role, content) for number, one in enumerate(values, start=1)]


def _message(number: int, value: Mapping[str, Any], role: str, content: str) -> Message:
    name = value.get(role)
    if not isinstance(name, str) or name not in _SPEAKERS:
        raise BadChat(f"message {number}: `{role}` is {_shown(name)}, and none of {_known()}")
    speaker = _SPEAKERS[name]
    text = _text(number, value.get(content), content)
    return Message(role=speaker, content=_said_by(speaker, number, text))


def _said_by(speaker: Speaker, number: int, text: str) -> str:
    if not text.strip() and speaker != "assistant":
        raise BadChat(f"message {number} is empty")
    return text


def _text(number: int, value: object, name: str) -> str:
    """A string, or parts of which all are text; an answer that only calls a tool has none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise BadChat(f"message {number}: `{name}` is {_shown(value)}, not text")
    return "".join(_part(number, part) for part in value)


def _part(number: int, part: object) -> str:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else part
    raise BadChat(f"message {number}: a part is {_shown(kind)}; only text can be sent")


def _chat(form: Form, messages: Sequence[Message]) -> Chat:
    turns: list[ChatTurn] = []
    said: list[Message] = []
    for message in messages if form in ("turns", "prompt") else _merged(messages):
        if message.role != "assistant":
            said.append(message)
        if message.role == "user":
            turns.append(ChatTurn(messages=tuple(said), recorded=None))
            said = []
        elif message.role == "assistant" and turns and not said:
            # an answer without a question before it, as in the middle of a split chat, is left out
            recorded = message.content if message.content.strip() else None
            turns[-1] = ChatTurn(messages=turns[-1].messages, recorded=recorded)
    if not turns:
        raise BadChat("nobody asks anything")
    return Chat(form=form, turns=tuple(turns))


def _merged(messages: Sequence[Message]) -> list[Message]:
    """Messages of one speaker in a row are one: many templates want speakers to take turns."""
    return [
        Message(role=role, content=_BETWEEN.join(one.content for one in group))
        for role, group in groupby(messages, key=lambda message: message.role)
    ]


def _known() -> str:
    return ", ".join(_SPEAKERS)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"

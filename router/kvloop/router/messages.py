"""Chat messages as the template takes them: a role and plain text."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.router.errors import BadRequest
from kvloop.router.openai_types import ChatMessage, TextPart
from kvloop.router.tokenizer import Message
from kvloop.router.validation import check_message_extra, unsupported

_PART_SEPARATOR = "\n"


def plain_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Check and flatten; raises BadRequest naming the message and field."""
    return [_plain(message, f"messages[{n}].") for n, message in enumerate(messages)]


def _plain(message: ChatMessage, where: str) -> Message:
    if message.role in ("tool", "function"):
        raise unsupported(f"{where}role", f": role '{message.role}' belongs to tool calls")
    check_message_extra(message, where)
    if message.content is None:
        raise BadRequest(f"'{where}content' must be text", param=f"{where}content")
    # OpenAI's name for the system's role since its reasoning models
    role = "system" if message.role == "developer" else message.role
    plain = {"role": role, "content": _text(message.content, f"{where}content")}
    return plain if message.name is None else {**plain, "name": message.name}


def _text(content: str | list[TextPart], where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for number, part in enumerate(content):
        place = f"{where}[{number}]"
        if part.type != "text":
            raise unsupported(f"{place}.type", f": content of type '{part.type}'")
        if part.text is None or part.model_extra:
            raise BadRequest(f"'{place}' must be {{type, text}}", param=place)
        texts.append(part.text)
    if not texts:
        raise BadRequest(f"'{where}' must not be an empty list", param=where)
    return _PART_SEPARATOR.join(texts)

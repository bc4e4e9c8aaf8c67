"""Bodies to typed requests; whatever is wrong is named in a 400."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from kvloop.router.errors import BadRequest
from kvloop.router.openai_types import Body, StreamOptions

Request = TypeVar("Request", bound=Body)

HARMLESS = frozenset(
    (
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
    )
)
"""Fields that change no answer here; they are ignored."""

_NONE: tuple[Any, ...] = (None,)
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "n": (None, 1),
    "best_of": (None, 1),
    "logit_bias": (None, {}),
    "suffix": (None, ""),
    "echo": (None, False),
    "modalities": (None, ["text"]),
    "audio": _NONE,
    "prediction": _NONE,
    "reasoning_effort": _NONE,
    "verbosity": _NONE,
    "web_search_options": _NONE,
    "min_tokens": (None, 0),
    "moderation": _NONE,
}
"""OpenAI's unsupported fields, with the values that ask for nothing."""

_MESSAGE_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "tool_calls": (None, []),
    "function_call": _NONE,
    "tool_call_id": _NONE,
    "refusal": _NONE,
    "audio": _NONE,
    "annotations": (None, []),
    "reasoning_content": (None, ""),
}


def parse(model: type[Request], body: bytes) -> Request:
    """Read a body; raises BadRequest naming the first field at fault."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _explained(error) from None


def check_extra(
    body: Body,
    *,
    where: str = "",
    neutral: Mapping[str, tuple[Any, ...]] = NEUTRAL,
    harmless: Iterable[str] = HARMLESS,
) -> None:
    """Refuse fields that are unsupported (unless their value asks for nothing) or unknown."""
    for name, value in (body.model_extra or {}).items():
        if name in neutral:
            _check_neutral(where + name, value, neutral[name])
        elif name not in harmless:
            raise BadRequest(
                f"Unrecognized request argument supplied: {where + name}",
                param=where + name,
                code="unknown_parameter",
            )


def check_message_extra(body: Body, where: str) -> None:
    """The same for a chat message."""
    check_extra(body, where=where, neutral=_MESSAGE_NEUTRAL, harmless=())


def check_stream_options(stream: bool | None, options: StreamOptions | None) -> None:
    """`stream_options` only makes sense in a stream."""
    if options is None:
        return
    check_extra(options, where="stream_options.", neutral={}, harmless=("include_obfuscation",))
    if not stream:
        raise BadRequest(
            "'stream_options' is only allowed when 'stream' is true", param="stream_options"
        )


def unsupported(name: str, why: str = "") -> BadRequest:
    """The error for a field that this server does not implement."""
    message = f"'{name}' is not supported by this server{why}"
    return BadRequest(message, param=name, code="unsupported_parameter")


def _check_neutral(name: str, value: Any, neutral: tuple[Any, ...]) -> None:
    if not any(value == allowed and type(value) is type(allowed) for allowed in neutral):
        raise unsupported(name)


def _explained(error: ValidationError) -> BadRequest:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return BadRequest(f"the body is not valid JSON: {first['msg']}", code="invalid_json")
    param = _path(first["loc"])
    if not param:
        return BadRequest("the body must be a JSON object", code="invalid_json")
    if first["type"] == "missing":
        message = f"you must provide the parameter '{param}'"
        return BadRequest(message, param=param, code="missing_required_parameter")
    kinds = sorted({e["msg"] for e in error.errors() if _path(e["loc"]) == param})
    return BadRequest(
        f"Invalid '{param}': {'; or '.join(kinds)}", param=param, code="invalid_value"
    )


def _path(location: tuple[int | str, ...]) -> str:
    """`messages[0].role`; the names that pydantic adds for the members of a union are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part != "str" and not part[0].isupper():
            path += f".{part}" if path else part
        elif not part.isidentifier():
            break
    return path

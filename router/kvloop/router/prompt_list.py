"""The prompts of a completion request: text, ids, or a list of either."""

from __future__ import annotations

from typing import Any

from kvloop.router.errors import BadRequest

MAX_PROMPTS = 256
Prompt = str | list[int]

_EXPECTED = "a string, a list of strings, a list of token ids or a list of such lists"


def prompt_list(value: Any, param: str) -> list[Prompt]:
    """One or several prompts; raises BadRequest naming the place of what is wrong."""
    if isinstance(value, str):
        prompts: list[Any] = [value]
    elif not isinstance(value, list):
        raise BadRequest(f"Invalid '{param}': must be {_EXPECTED}", param=param)
    elif value and _is_id(value[0]):
        prompts = [value]
    else:
        prompts = value
    if not prompts:
        raise BadRequest(f"Invalid '{param}': must not be empty", param=param)
    if len(prompts) > MAX_PROMPTS:
        message = f"Invalid '{param}': at most {MAX_PROMPTS} prompts a request, got {len(prompts)}"
        raise BadRequest(message, param=param)
    several = prompts is value
    for index, prompt in enumerate(prompts):
        _check(prompt, type(prompts[0]), f"{param}[{index}]" if several else param)
    return prompts


def check_ids(ids: list[int], vocab_size: int, param: str) -> None:
    """Raise BadRequest for an id that the model does not have."""
    if ids and (min(ids) < 0 or max(ids) >= vocab_size):
        message = f"Invalid '{param}': token ids must be from 0 to {vocab_size - 1}"
        raise BadRequest(message, param=param)


def _check(prompt: Any, kind: type, where: str) -> None:
    if type(prompt) is not kind or kind not in (str, list):
        raise BadRequest(f"Invalid '{where}': the prompt must be {_EXPECTED}", param=where)
    if not prompt:
        raise BadRequest(f"Invalid '{where}': must not be empty", param=where)
    if isinstance(prompt, list) and not all(map(_is_id, prompt)):
        raise BadRequest(f"Invalid '{where}': must hold token ids (integers) only", param=where)


def _is_id(value: Any) -> bool:
    return type(value) is int

"""pydantic's findings in words: which field, what is wrong with it, what would be right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kvloop.operator.errors import Problem
from kvloop.operator.types.patterns import WORDS

Location = Sequence[int | str]

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "an object of names and values",
    "model_type": "an object",
    "list_type": "a list",
}
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_LENGTHS = {
    "string_too_short": ("min_length", "at least", "character"),
    "string_too_long": ("max_length", "at most", "character"),
    "too_short": ("min_length", "at least", "entry"),
    "too_long": ("max_length", "at most", "entry"),
}
_MAX_SHOWN = 80
"""Characters of a value."""


def in_words(model: type[BaseModel], error: ValidationError) -> list[Problem]:
    """One problem for each field that the model refuses."""
    found = error.errors(include_url=False)
    return [Problem(field=_path(one["loc"]), message=_message(model, one)) for one in found]


def _path(location: Location) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _message(model: type[BaseModel], error: ErrorDetails) -> str:
    kind, bounds, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "missing":
        return _missing(model, error["loc"])
    if kind == "extra_forbidden":
        return _unknown(model, error["loc"])
    if kind == "literal_error":
        return f"is {_shown(value)}; must be {bounds['expected']}" + _close(value, bounds)
    if kind in _TYPES:
        return f"is {_shown(value)}; must be {_TYPES[kind]}"
    if kind in _BOUNDS:
        name, word = _BOUNDS[kind]
        return f"is {_shown(value)}; must be {word} {bounds[name]:g}"
    if kind in _LENGTHS:
        return _length(kind, bounds, value)
    if kind == "string_pattern_mismatch":
        pattern = bounds["pattern"]
        return f"is {_shown(value)}; must be {WORDS.get(pattern, f'text that fits {pattern}')}"
    return f"is {_shown(value)}; {error['msg']}"


def _missing(model: type[BaseModel], location: Location) -> str:
    field = _fields(_model_at(model, location[:-1])).get(str(location[-1]))
    return f"is missing; it is needed: {field}" if field else "is missing; it is needed"


def _unknown(model: type[BaseModel], location: Location) -> str:
    name, fields = str(location[-1]), _fields(_model_at(model, location[:-1]))
    lower = {field.lower(): field for field in fields}
    if near := get_close_matches(name.lower(), lower, n=1):
        return f"there is no such field; did you mean {lower[near[0]]}?"
    return f"there is no such field; those here are {', '.join(sorted(fields))}"


def _close(value: Any, bounds: Mapping[str, Any]) -> str:
    if isinstance(value, bool):
        return "; YAML reads a bare on, off, yes or no as true or false: quote it"
    if not isinstance(value, str):
        return ""
    words = [word.strip("',") for word in str(bounds["expected"]).replace(" or ", " ").split()]
    near = get_close_matches(value.lower(), words, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _length(kind: str, bounds: Mapping[str, Any], value: Any) -> str:
    name, word, unit = _LENGTHS[kind]
    count = bounds[name]
    units = unit if count == 1 else "entries" if unit == "entry" else f"{unit}s"
    return f"has {len(value)}; must have {word} {count} {units}"


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def _fields(model: type[BaseModel] | None) -> dict[str, str]:
    """Descriptions by the names that users write."""
    found = model.model_fields.items() if model else ()
    return {field.alias or name: field.description or "" for name, field in found}


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    at: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, str) and at is not None:
            at = _field_model(at, part)
    return at


def _field_model(model: type[BaseModel], alias: str) -> type[BaseModel] | None:
    fields = model.model_fields.items()
    kinds = (field.annotation for name, field in fields if (field.alias or name) == alias)
    return next((found for kind in kinds for found in _models(kind)), None)


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for argument in getattr(kind, "__args__", ()):
        yield from _models(argument)

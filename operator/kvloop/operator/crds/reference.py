"""The fields of all kinds for people, from the same schemas as the CRDs."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from kvloop.operator.crds.kinds import KINDS, Kind
from kvloop.operator.crds.parts import parts
from kvloop.operator.crds.schema import Schema, spec_schema, status_schema
from kvloop.operator.types.base import Model
from kvloop.operator.types.patterns import WORDS

BEGIN, END = "<!-- fields: made by python -m kvloop.operator.crds -->", "<!-- end of fields -->"
_WIDTH = 125
_SHARED: tuple[str, ...] = ("PodSettings", "Scheduling")
"""Bases whose fields are told once, not with each part that has them."""


def with_fields(page: str) -> str:
    """The page with what is between its two marks made anew."""
    head, _, rest = page.partition(BEGIN)
    _, mark, tail = rest.partition(END)
    assert mark, f"the page needs {BEGIN} and {END}"
    return f"{head}{BEGIN}\n\n{fields()}\n{END}{tail}"


def fields() -> str:
    """Markdown: a heading a part, a line a field, its rules below."""
    told: set[str] = set()
    return "\n".join(line for kind in KINDS for line in _kind(kind, told))


def _kind(kind: Kind, told: set[str]) -> Iterator[str]:
    yield f"## {kind.name} ({kind.short})\n"
    yield from _wrapped(f"{inspect.getdoc(kind.resource)}", "")
    for name, model in parts(kind.spec).items():
        for part in (model, *_bases(model)):
            if part.__name__ not in told:
                told.add(part.__name__)
                yield from _part("spec" if part is kind.spec else part.__name__, part)
        told.add(name)
    yield from _part(f"status of {kind.name}", kind.status)
    for part in parts(kind.status).values():
        if part.__name__ not in told and part is not kind.status:
            told.add(part.__name__)
            yield from _part(part.__name__, part)


def _part(title: str, model: type[BaseModel]) -> Iterator[str]:
    yield f"\n### {title}\n"
    shared = [base.__name__ for base in _bases(model)][:1]
    about = inspect.getdoc(model) or ""
    also = f" Also all fields of {shared[0]}." if shared else ""
    yield from _wrapped(about + also, "")
    yield ""
    is_spec = issubclass(model, Model)
    schema = spec_schema(model) if issubclass(model, Model) else status_schema(model)
    hidden = {alias for base in _bases(model) for alias in _aliases(base)}
    for alias, inner in schema["properties"].items():
        if alias not in hidden:
            needed = is_spec and alias in schema.get("required", ())
            yield from _wrapped(_field(alias, inner, _part_name(model, alias), needed), "- ")
    if issubclass(model, Model) and model.RULES:
        yield "\nRules:\n"
        for rule in model.RULES:
            at = f"`{rule.field}`: " if rule.field else ""
            alone = "" if rule.cel else " (told by the operator, not by the API server)"
            yield from _wrapped(f"{at}{rule.message}{alone}", "- ")


def _bases(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The shared ones that it is made from, the nearest first."""
    found = [base for base in model.__mro__[1:] if base.__name__ in _SHARED]
    return [base for base in found if issubclass(base, BaseModel)]


def _aliases(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _part_name(model: type[BaseModel], alias: str) -> str | None:
    """Of the part that the field holds."""
    for name, field in model.model_fields.items():
        if (field.alias or name) == alias:
            inner = _first_model(field.annotation)
            return inner.__name__ if inner is not None else None
    return None


def _first_model(kind: Any) -> type[BaseModel] | None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    found = (_first_model(one) for one in getattr(kind, "__args__", ()))
    return next((one for one in found if one is not None), None)


def _field(alias: str, schema: Schema, part: str | None, needed: bool) -> str:
    default = schema.get("default")
    facts = [_type(schema, part)]
    if needed:
        facts.append("needed")
    elif default not in (None, {}, []):
        facts.append(f"default `{default if isinstance(default, str) else json.dumps(default)}`")
    return f"`{alias}` ({', '.join(facts)}): {schema.get('description', '')}"


def _type(schema: Schema, part: str | None) -> str:
    if "enum" in schema:
        return " | ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return "quantity"
    match schema["type"]:
        case "array":
            return f"list of {_type(schema['items'], part)}"
        case "object" if "additionalProperties" in schema:
            return f"map of {_type(schema['additionalProperties'], part)}"
        case "object":
            return part or "object"
        case "string":
            return WORDS.get(schema.get("pattern", ""), "text")
        case kind:
            return f"{kind}{_range(schema)}"


def _range(schema: Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    above = "above" if schema.get("exclusiveMinimum") else "from"
    below = "below" if schema.get("exclusiveMaximum") else "to"
    words = [f"{above} {least:g}"] if least is not None else []
    words += [f"{below} {most:g}"] if most is not None else []
    return f" {' '.join(words)}" if words else ""


def _wrapped(text: str, mark: str) -> list[str]:
    indent = " " * len(mark)
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=mark,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

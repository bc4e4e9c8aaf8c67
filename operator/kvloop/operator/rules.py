"""The rules of a parsed resource and of all its parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvloop.operator.errors import Problem
from kvloop.operator.types.base import Model


def broken_rules(part: Any, path: str = "") -> Iterator[Problem]:
    """Of the part itself, then of the parts in it, in the order of their fields."""
    if isinstance(part, Model):
        yield from _own(part, path)
    for name, inner in _inner(part):
        yield from broken_rules(inner, _joined(path, name))


def _own(part: Model, path: str) -> Iterator[Problem]:
    for rule in part.RULES:
        if not rule.check(part):
            field = _joined(path, rule.field) if rule.field else path
            yield Problem(field=field or "metadata", message=rule.message)


def _inner(part: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(part, Model):
        for name, field in type(part).model_fields.items():
            yield field.alias or name, getattr(part, name)
    elif isinstance(part, list):
        yield from ((f"[{index}]", item) for index, item in enumerate(part))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and not name.startswith("[") else path + name

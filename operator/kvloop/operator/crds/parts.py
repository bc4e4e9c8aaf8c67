"""Which models a model is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def parts(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The model and all in it, by the names that pydantic refers to them by, outer ones first."""
    found: dict[str, type[BaseModel]] = {}

    def visit(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind.__name__ in found:
                return
            found[kind.__name__] = kind
            for field in kind.model_fields.values():
                visit(field.annotation)
        for argument in getattr(kind, "__args__", ()):
            visit(argument)

    visit(model)
    return found

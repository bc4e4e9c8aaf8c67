"""The JSON schema of a report, with what the fields' docstrings say of them."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec

from kvloop.benchmark import sample
from kvloop.benchmark.results import document

TITLE = "A report of kvloop bench"


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of `document.Report`; fields are explained as in their classes."""
    schema = msgspec.json.schema(document.Report)
    for name, fields in _explained():
        properties = schema["$defs"].get(name, {}).get("properties", {})
        for field, words in fields:
            if field in properties:
                properties[field]["description"] = words
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{document.SCHEMA}.schema.json",
        "title": TITLE,
        **schema,
    }


def render_schema() -> str:
    """As the committed file has it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _explained() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each class's fields that a string follows."""
    for module in (document, sample):
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                yield node.name, list(_fields_of(node))


def _fields_of(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for one, after in pairwise(node.body):
        if not (isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            yield one.target.id, inspect.cleandoc(str(after.value.value)).replace("\n", " ")

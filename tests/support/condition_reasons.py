"""Every reason that the operator's code gives in a condition or a benchmark's status."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

OPERATOR = Path(__file__).parents[2] / "operator" / "kvloop" / "operator"
WORD = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-zA-Z]*)*")
GIVERS = {"no", "unknown", "_wait", "InputError", "Problem", "Trouble"}
"""Functions whose first argument is a reason."""
PAIRS = {"pod_trouble.py", "pod_state.py"}
"""Files whose functions give pairs of reason and message."""


def reasons() -> dict[str, str]:
    """By reason, a file that gives it."""
    found: dict[str, str] = {}
    for path in sorted(OPERATOR.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for value in _given(node, path.name):
                for word in _words(value):
                    found.setdefault(word, str(path.relative_to(OPERATOR)))
    return found


def _given(node: ast.AST, file: str) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        yield from (one.value for one in node.keywords if one.arg == "reason")
        if _name(node.func) in GIVERS and node.args:
            yield node.args[0]
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(one, ast.Name) and one.id == "REASONS" for one in targets):
            yield from getattr(node.value, "elts", [])
    if file in PAIRS and isinstance(node, ast.Return | ast.Yield):
        yield from getattr(node.value, "elts", [])[:1]


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _words(value: ast.expr) -> Iterator[str]:
    """Constants, also in the branches of a choice."""
    if isinstance(value, ast.IfExp):
        yield from _words(value.body)
        yield from _words(value.orelse)
    elif isinstance(value, ast.BoolOp):
        for one in value.values:
            yield from _words(one)
    elif isinstance(value, ast.Constant) and isinstance(value.value, str):
        if WORD.fullmatch(value.value):
            yield value.value
    elif isinstance(value, ast.Call):
        for one in value.args:
            yield from _words(one)

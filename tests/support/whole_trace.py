"""The whole conversation trace, which is not in the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "KVLOOP_TEST_DATA"
_FOLDER = Path(__file__).parents[3] / "shared" / "data"
EXCERPT = Path(__file__).parents[1] / "data" / "conversation_trace_excerpt.jsonl"


def whole_trace() -> Path:
    """The file, in the folder that the variable names or beside the repository; or skip."""
    path = Path(os.environ.get(VARIABLE) or _FOLDER) / "conversation_trace.jsonl"
    if not path.is_file():
        pytest.skip(f"no conversation_trace.jsonl: name its folder with {VARIABLE}")
    return path

"""How often a property is tried: by default so that tests end in minutes, in full when asked."""

from __future__ import annotations

import os

IS_FULL = os.environ.get("KVLOOP_TESTS") == "full"
"""As in `make test-full`."""
DEFAULT = 100 if IS_FULL else 50
"""Of a property that says nothing."""


def examples(full: int) -> int:
    """All of them in a full run, a quarter otherwise."""
    return full if IS_FULL else full // 4

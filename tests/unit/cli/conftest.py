"""A store in memory, and `kvloop cache` on it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
from shelf_store import KEYS, MODULE, NS, OTHER, SHAPE, SHELVES, Shelf, config, describe

from kvloop.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """Five pages of a model, the first the oldest, and one page of another namespace."""
    shelf = SHELVES["a"]
    now = time.time()
    for i, key in enumerate(KEYS[:5]):
        writer = "decode" if i == 4 else "prefill"
        shelf.plant(NS, SHAPE, key, writer=writer, used_at=now - 3600 * (5 - i))
    describe(shelf)
    shelf.plant(OTHER, SHAPE, KEYS[7], used_at=now - 86400 * 3)
    yield shelf
    SHELVES.clear()


@pytest.fixture
def cache(capsys: pytest.CaptureFixture[str]) -> Run:
    """A tool on store `a`: exit status, stdout, stderr."""

    def run(tool: str, *flags: str, store: str = "a") -> tuple[int, str, str]:
        where = ["--backend", "dynamic", "--config", json.dumps(config(store))]
        status = main(["cache", tool, *where, "--dynamic-modules", MODULE, *flags])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


@pytest.fixture
def cache_copy(capsys: pytest.CaptureFixture[str]) -> Run:
    """`copy` from store `a` to store `b`."""

    def copy(*flags: str) -> tuple[int, str, str]:
        stores = [f"dynamic:{json.dumps(config(name))}" for name in ("a", "b")]
        status = main(["cache", "copy", *stores, "--dynamic-modules", MODULE, *flags])
        out = capsys.readouterr()
        return status, out.out, out.err

    return copy

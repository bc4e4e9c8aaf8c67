"""What a prefill node remembers of L3, and when it must not trust its memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvloop.engine.parts import NodeParts
from kvloop.prefill import written as module
from kvloop.prefill.job import Job
from kvloop.prefill.written import Written
from kvloop.shared_cache.wire import Role

KEYS = [bytes([i]) * 32 for i in range(4)]


class Writer:
    """Stands for the page writer: stores at once, or refuses."""

    def __init__(self, _parts: NodeParts, stored: Any) -> None:
        self._stored = stored
        self.written: list[bytes] = []
        self.room = 99
        self.backlog = 0

    def submit(self, keys: list[bytes], _pages: list[int]) -> int:
        taken = keys[: self.room]
        self.written += taken
        for key in taken:
            self._stored(key, True)
        return len(taken)


def job(matched: int = 0, writers: tuple[Role, ...] = ()) -> Job:
    """Four full pages, of which the first `matched` were cached and the next were read from L3."""
    fields = {
        "keys": KEYS,
        "pages": [0, 1, 2, 3],
        "num_matched": matched,
        "writers": list(writers),
        "num_full_pages": 4,
    }
    return cast(Job, SimpleNamespace(**fields))


@pytest.fixture
def store() -> Any:
    return SimpleNamespace(epoch=b"1")


@pytest.fixture
def written(store: Any, monkeypatch: pytest.MonkeyPatch) -> Written:
    monkeypatch.setattr(module, "PageWriter", Writer)
    return Written(cast(NodeParts, SimpleNamespace(store=store)))


def writer(written: Written) -> Writer:
    return cast(Writer, written._writer)


def test_cached_pages_that_were_stored_are_not_written_again(written: Written) -> None:
    assert written.prompt(job()) == ["stored"] * 4
    writer(written).written.clear()
    assert written.prompt(job(matched=3)) == ["stored"] * 4
    assert writer(written).written == KEYS[3:]


def test_a_page_that_was_computed_is_written_whatever_is_remembered(written: Written) -> None:
    written.prompt(job())
    writer(written).written.clear()
    written.prompt(job(matched=1, writers=("decode",)))
    assert writer(written).written == KEYS[2:]


def test_a_store_that_lost_its_content_gets_the_cached_pages_again(
    written: Written, store: Any
) -> None:
    written.prompt(job())
    writer(written).written.clear()
    store.epoch = b"2"
    written.prompt(job(matched=3))
    assert writer(written).written == KEYS


def test_a_page_without_room_in_the_host_pool_will_not_be_stored(written: Written) -> None:
    written.prompt(job())
    writer(written).room = 1
    assert written.prompt(job(matched=2)) == ["stored", "stored", "stored", "will_not"]

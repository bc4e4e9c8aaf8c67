"""Stores staged pages on a thread of its own, in batches of several chains."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from kvloop.decode.offload.chain import Page
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.workers import Workers

log = logging.getLogger("kvloop.decode")
BATCH = 32
"""Pages in one call at most."""
_MAX_CALLS = 2
"""One under way and one ready, so that the thread does not wait for the loop's next turn."""


class Written(NamedTuple):
    """One call's pages, and which of them L3 has now."""

    pages: list[Page]
    results: list[bool]


class Writer:
    """`submit` never waits; the slots stay the caller's, and as they are until `collect`."""

    def __init__(self, store: PageStore) -> None:
        self._store = store
        self._workers = Workers(1, "offload-writer")
        self._calls: list[tuple[list[Page], Future[list[bool]]]] = []

    @property
    def has_room(self) -> bool:
        """Whether another call may be handed over."""
        return len(self._calls) < _MAX_CALLS

    def submit(self, pages: list[Page]) -> None:
        """Store the pages' slots; an extra page goes alone."""
        assert self.has_room and 0 < len(pages) <= BATCH
        keys, slots = [], []
        for page in pages:
            assert page.slot is not None
            keys.append(page.key)
            slots.append(page.slot)
            page.chain.moving.add(page)
        extra = next((page.extra for page in pages if page.extra is not None), None)
        assert extra is None or len(pages) == 1
        if extra is None:
            future = self._workers.submit(self._store.save, keys, slots)
        else:
            future = self._workers.submit(self._save_extra, pages[0], slots[0])
        self._calls.append((pages, future))

    def collect(self) -> list[Written]:
        """Calls that have ended since the last time; their pages move no more."""
        ended = [call for call in self._calls if call[1].done()]
        if not ended:
            return []
        self._calls = [call for call in self._calls if not any(call is one for one in ended)]
        for pages, _ in ended:
            for page in pages:
                page.chain.moving.discard(page)
        return [Written(pages, _results(pages, future)) for pages, future in ended]

    def stop(self) -> None:
        """End the thread behind its last call."""
        self._workers.stop()

    def _save_extra(self, page: Page, slot: int) -> list[bool]:
        extra = page.extra
        assert extra is not None
        extra.prepare(slot)
        results = self._store.save([page.key], [slot])
        if results[0]:
            try:
                extra.done(True)
            except Exception:
                log.exception("what follows an extra page failed")
        return results


def _results(pages: Sequence[Page], future: Future[list[bool]]) -> list[bool]:
    error = future.exception()
    if error is not None:
        log.error("storing %d pages failed: %r", len(pages), error)
        return [False] * len(pages)
    return future.result()

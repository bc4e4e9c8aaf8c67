"""Write-through of computed prompt pages, and what is known of each page's place in L3."""

from __future__ import annotations

from collections import OrderedDict

from kvloop.engine.page_writer import PageWriter
from kvloop.engine.parts import NodeParts
from kvloop.prefill.job import Job
from kvloop.shared_cache.wire import StorageState

_REMEMBERED = 1_000_000


class Written:
    """Remembers, by page key, which pages this node stored or read; bounded, oldest forgotten."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._states: OrderedDict[bytes, StorageState] = OrderedDict()
        self._epoch = parts.store.epoch
        self._writer = PageWriter(parts, self._stored)

    @property
    def backlog(self) -> int:
        """Pages yet to be stored."""
        return self._writer.backlog

    def prompt(self, job: Job) -> list[StorageState]:
        """Write the prompt's pages that are not known to be in L3; the state of each full page."""
        self._forget_lost()
        num_held = job.num_matched + len(job.writers)
        for key in job.keys[job.num_matched : num_held]:
            self._note(key, "stored")
        # A page that had to be computed was not found in L3, whatever is remembered of it.
        missing = [i for i, k in enumerate(job.keys) if i >= num_held or k not in self._states]
        taken = self._writer.submit([job.keys[i] for i in missing], [job.pages[i] for i in missing])
        for index in missing[:taken]:
            # The writer's thread may have been quicker.
            self._states.setdefault(job.keys[index], "storing")
        for index in missing[taken:]:
            self._states.pop(job.keys[index], None)
        states = [self._states.get(key, "will_not") for key in job.keys]
        return states or ["will_not"] * job.num_full_pages

    def close(self, timeout_s: float) -> None:
        self._writer.close(timeout_s)

    def _forget_lost(self) -> None:
        epoch = self._parts.store.epoch
        if epoch != self._epoch:
            self._states.clear()
            self._epoch = epoch

    def _stored(self, key: bytes, is_stored: bool) -> None:
        """On the writer's thread."""
        if is_stored:
            self._note(key, "stored")
        else:
            self._states.pop(key, None)

    def _note(self, key: bytes, state: StorageState) -> None:
        self._states[key] = state
        self._states.move_to_end(key)
        while len(self._states) > _REMEMBERED:
            self._states.popitem(last=False)

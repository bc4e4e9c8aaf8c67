"""Which layers of which pages are pushed to decode, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from kvloop.engine.parts import NodeParts
from kvloop.prefill.job import Job
from kvloop.prefill.sender import Push, Sender


class Pushes:
    """Queues a job's pages with the sender, layer by layer; called by the loop's threads."""

    def __init__(self, parts: NodeParts, sender: Sender) -> None:
        self._parts, self._sender = parts, sender
        self._page_size = parts.config.page_size

    def found(self, job: Job) -> None:
        """The pages that were found in a tier: each layer once it is on the device."""
        assert job.lease is not None
        load = job.lease.load
        for layer in range(self._parts.num_layers):
            if load is None:
                is_ready = self._parts.device_mark()
            else:
                is_ready = partial(load.await_layer, layer)
            self._push(job, layer, 0, job.num_done // self._page_size, is_ready)

    def layer(self, chosen: Sequence[tuple[Job, int]], layer: int) -> None:
        """A step has computed a layer of so many tokens of each job."""
        is_ready = self._parts.device_mark()
        for job, take in chosen:
            end = -(-(job.num_done + take) // self._page_size)
            self._push(job, layer, job.num_done // self._page_size, end, is_ready)

    def _push(
        self, job: Job, layer: int, start: int, end: int, is_ready: Callable[[], None]
    ) -> None:
        offset = job.request.first_page
        start = max(start, offset)
        if start >= end:
            return
        self._sender.push(
            Push(
                attempt=job.attempt,
                layer=layer,
                first=start,
                pages=job.pages[start:end],
                target_pages=job.request.target.pages[start - offset : end - offset],
                is_ready=is_ready,
            )
        )

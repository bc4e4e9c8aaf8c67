"""Prefill on several CPU threads by rows: each computes its own rows through every layer.

Threads meet once a layer, when all K and V are written. One parallel region for each torch call
(OpenMP) would meet ten times a layer, and packed matrices do not use it at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from kvloop.engine.batch import Batch

Result = TypeVar("Result")
_MIN_ROWS = 32
"""Rows that make a thread worth its while."""
_LAYER_DEADLINE_S = 300.0


class Meeting:
    """Where parts wait until all have written a layer; the last to come calls `on_layer`."""

    def __init__(self, parts: int, on_layer: Callable[[int], None]) -> None:
        self._layer = 0
        self._on_layer = on_layer
        self._barrier = threading.Barrier(parts, self._all_written, _LAYER_DEADLINE_S)

    def _all_written(self) -> None:
        self._on_layer(self._layer)
        self._layer += 1

    def wait(self, layer: int) -> None:
        """Return once every part has written `layer`; BrokenBarrierError if one failed."""
        self._barrier.wait()
        assert self._layer == layer + 1

    def abort(self) -> None:
        """Let the others fail too: this part will not come."""
        self._barrier.abort()


class RowWorkers:
    """Threads that compute parts of a batch side by side."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(
            max(1, threads - 1), "rows", initializer=torch.set_num_threads, initargs=(1,)
        )

    def parts(self, batch: Batch) -> list[Batch]:
        """The batch, cut for as many threads as it has work for."""
        wanted = min(self.threads, batch.num_tokens // _MIN_ROWS)
        return batch.split(wanted) if wanted > 1 else [batch]

    def run(self, tasks: Sequence[Callable[[], Result]], meeting: Meeting) -> list[Result]:
        """Results in order; one task's failure ends all, and is raised."""

        def guarded(task: Callable[[], Result]) -> Result:
            try:
                return task()
            except BaseException:
                meeting.abort()
                raise

        others = [self._pool.submit(guarded, task) for task in tasks[1:]]
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            outcomes: list[Result | BaseException] = [_outcome(lambda: guarded(tasks[0]))]
        finally:
            torch.set_num_threads(before)
        outcomes += [_outcome(future.result) for future in others]
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        causes = [e for e in errors if not isinstance(e, threading.BrokenBarrierError)]
        if errors:
            raise (causes or errors)[0]
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


def _outcome(call: Callable[[], Result]) -> Result | BaseException:
    try:
        return call()
    except BaseException as error:
        return error

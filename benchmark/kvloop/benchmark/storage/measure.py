"""Every arm, in every round, in changing order: seconds of each phase and of each call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from kvloop.benchmark.storage.arm import Arm
from kvloop.benchmark.storage.load import PHASES, Batch, Phase, StorageLoad, phase_batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One phase of one round by one arm."""

    arm: str
    round: int
    phase: Phase
    seconds: float
    call_seconds: tuple[float, ...]
    pages: int
    """That were moved."""
    pages_missed: int
    """That should have been, and were not."""


def measure(load: StorageLoad, arms: Sequence[Arm]) -> Iterator[Run]:
    """Run the load; yields each phase as it ends. What an arm wrote is removed after its round."""
    for number in range(load.rounds):
        turn = number % len(arms)
        for arm in (*arms[turn:], *arms[:turn]):
            yield from _round(load, arm, number)


def _round(load: StorageLoad, arm: Arm, number: int) -> Iterator[Run]:
    written: list[Batch] = []
    arm.prepare()
    try:
        for phase in PHASES:
            batches = phase_batches(load, arm.name, number, phase)
            written += [batch for batch in batches if not batch.is_read]
            yield _phase(load, arm, number, phase, batches)
    finally:
        for batch in written:
            arm.forget(batch.keys)


def _phase(load: StorageLoad, arm: Arm, number: int, phase: Phase, batches: list[Batch]) -> Run:
    queue: SimpleQueue[Batch] = SimpleQueue()
    for batch in batches:
        queue.put(batch)
    with ThreadPoolExecutor(load.threads) as threads:
        began = time.perf_counter()
        each = list(threads.map(lambda i: _calls(load, arm, i, queue), range(load.threads)))
        seconds = time.perf_counter() - began
    calls = [call for thread in each for call in thread]
    pages = sum(num_moved for _, num_moved in calls)
    return Run(
        arm=arm.name,
        round=number,
        phase=phase,
        seconds=seconds,
        call_seconds=tuple(call_seconds for call_seconds, _ in calls),
        pages=pages,
        pages_missed=len(batches) * load.pages_per_batch - pages,
    )


def _calls(
    load: StorageLoad, arm: Arm, thread: int, queue: SimpleQueue[Batch]
) -> list[tuple[float, int]]:
    """Seconds and pages of each call that this thread made."""
    first = thread * load.pages_per_batch
    slots = range(first, first + load.pages_per_batch)
    calls = []
    while (batch := _next(queue)) is not None:
        began = time.perf_counter()
        num_moved = (arm.read if batch.is_read else arm.write)(batch.keys, slots)
        calls.append((time.perf_counter() - began, num_moved))
    return calls


def _next(queue: SimpleQueue[Batch]) -> Batch | None:
    try:
        return queue.get_nowait()
    except Empty:
        return None

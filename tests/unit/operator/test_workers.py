"""Looks by a few workers at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from kvloop.operator.errors import ApiError
from kvloop.operator.runtime.metrics import Metrics
from kvloop.operator.runtime.queue import Key
from kvloop.operator.runtime.workers import WORKERS, Workers

A, B = Key("PDCluster", "n", "a"), Key("PDCluster", "n", "b")


async def until(workers: Workers, done: asyncio.Event) -> None:
    """Run them so long."""
    task = asyncio.ensure_future(workers.run())
    async with asyncio.timeout(60):
        await done.wait()
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def results(metrics: Metrics, result: str) -> float | None:
    """How many looks came to that."""
    labels = {"kind": "PDCluster", "result": result}
    return metrics.registry.get_sample_value("kvloop_operator_reconcile_total", labels)


async def test_looks_that_fail_in_any_way_are_tried_again() -> None:
    faults: list[Exception] = [ApiError("away"), TimeoutError(), RuntimeError("a bug")]
    done = asyncio.Event()

    async def look(_: Key) -> float | None:
        if faults:
            raise faults.pop(0)
        done.set()
        return None

    metrics = Metrics()
    workers = Workers(look, metrics)
    workers.add([A])
    await until(workers, done)
    assert [results(metrics, name) for name in ("error", "timeout", "crash", "ok")] == [1, 1, 1, 1]


async def test_one_slow_resource_holds_up_no_other() -> None:
    done = asyncio.Event()

    async def look(key: Key) -> float | None:
        if key == A:
            await asyncio.sleep(3600)
        done.set()
        return None

    workers = Workers(look, Metrics())
    workers.add([A])
    workers.add([B])
    await until(workers, done)


async def test_no_resource_is_looked_at_twice_at_a_time() -> None:
    running: set[Key] = set()
    done = asyncio.Event()
    looks = 0

    async def look(key: Key) -> float | None:
        nonlocal looks
        assert key not in running
        running.add(key)
        workers.add([key])
        await asyncio.sleep(0.01)
        running.remove(key)
        looks += 1
        if looks > WORKERS:
            done.set()
        return 0.0

    metrics = Metrics()
    workers = Workers(look, metrics)
    workers.add([A, B])
    await until(workers, done)
    assert results(metrics, "crash") is None


async def test_the_next_look_comes_by_itself() -> None:
    done = asyncio.Event()
    looks: list[Key] = []

    async def look(key: Key) -> float | None:
        looks.append(key)
        if len(looks) == 3:
            done.set()
        return 0.1

    workers = Workers(look, Metrics())
    workers.add([A])
    await until(workers, done)
    assert looks == [A, A, A]

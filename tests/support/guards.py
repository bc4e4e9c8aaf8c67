"""Guards over backends behind valves, and calls that hang there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from memory_backend import MemoryBackend, Valve, eventually

from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=1, head_size=8, itemsize=2)
KEYS = [bytes([i]) * 32 for i in range(4)]
QUICK = GuardConfig(deadline_s=0.1, first_retry_s=0.02, max_retry_s=0.1, num_threads=2)
SLOW = replace(QUICK, deadline_s=20.0)


def take(pool: HostPool, n: int) -> list[int]:
    slots = pool.alloc(n)
    assert slots is not None
    return slots


def opener(valve: Valve, pool: HostPool) -> Callable[[], MemoryBackend]:
    return lambda: MemoryBackend(valve, pool)


def empty_guard(pool: HostPool, config: GuardConfig) -> GuardedBackend:
    return GuardedBackend(None, pool, name="none", namespace=b"n" * 32, config=config)


def attach(guard: GuardedBackend, valve: Valve, name: str = "memory") -> None:
    guard.attach(opener(valve, guard.pool), name)
    assert guard.wait_attached(5)


class Threads:
    """Those that were begun since: other tests may have left some."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def are_over(self) -> bool:
        new = set(threading.enumerate()) - self._before
        return not any(thread.name.startswith("l3-") for thread in new)


def in_background(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    return thread, results


def begin_call(
    guard: GuardedBackend, valve: Valve, work: Callable[[], object]
) -> tuple[threading.Thread, list[object]]:
    """A call that has reached the backend and hangs there."""
    valve.is_open.clear()
    before = valve.num_waiting
    thread, results = in_background(work)
    assert eventually(lambda: valve.num_waiting > before)
    return thread, results

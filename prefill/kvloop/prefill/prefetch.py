"""Reads a prompt's pages from the shared cache into the host pool while the prompt queues."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.wire import Role

_THREADS = 4
Loaded = list[tuple[int, Role | None]]
"""(host slot, writer) of each page asked for; without a writer the page is not there."""


class Prefetch:
    """Pages of one prompt on their way from the shared cache; `pages` is their leading run."""

    def __init__(self, pool: HostPool, future: Future[Loaded] | None = None) -> None:
        self._pool, self._future = pool, future

    @property
    def is_done(self) -> bool:
        return self._future is None or self._future.done()

    def take(self) -> list[tuple[int, Role]]:
        """(host slot, writer) of each page of the run; the slots are the caller's to free."""
        if self._future is None:
            return []
        future, self._future = self._future, None
        return _leading(self._pool, future.result())

    def drop(self) -> None:
        """Free what has come, or will come."""
        if self._future is not None:
            future, self._future = self._future, None
            future.add_done_callback(lambda done: _free(self._pool, done.result()))


class Prefetcher:
    """Runs loads on a few threads; the store bounds each by its own deadline."""

    def __init__(self, store: PageStore, pool: HostPool) -> None:
        self._store, self._pool = store, pool
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="prefetch")

    def start(self, keys: Sequence[bytes]) -> Prefetch:
        """Begin to load the leading run of `keys` that the shared cache holds."""
        if not keys:
            return Prefetch(self._pool)
        return Prefetch(self._pool, self._threads.submit(self._load, list(keys)))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _load(self, keys: list[bytes]) -> Loaded:
        slots = self._pool.alloc_up_to(self._store.leading_run(keys))
        writers = self._store.load(keys[: len(slots)], slots)
        return list(zip(slots, writers, strict=True))


def _leading(pool: HostPool, pages: Loaded) -> list[tuple[int, Role]]:
    run: list[tuple[int, Role]] = []
    for slot, writer in pages:
        if writer is None:
            break
        run.append((slot, writer))
    _free(pool, pages[len(run) :])
    return run


def _free(pool: HostPool, pages: Loaded) -> None:
    pool.free([slot for slot, _ in pages])

"""One of SGLang's host pools and its namespace of the store: pages in, pages out, never an error.

SGLang's memory is only touched by the calling thread, before it returns: the store reads and writes
the staging pool, so that a call which misses its deadline can harm no page of SGLang's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.manifest import Manifest
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.sglang.config import PluginConfig
from kvloop.shared_cache.sglang.copies import Copies
from kvloop.shared_cache.sglang.host_pages import HostPages, Piece, gather, scatter, size_of
from kvloop.shared_cache.sglang.identity import flat_shape

log = logging.getLogger(__name__)

_SLOT_WAIT_S = 1.0
_MIN_SLOTS = 2
_EXISTS_BATCH = 512  # keys of one guarded call, so that its deadline is fair
_Pieces = Sequence[Piece]


class PoolStore:
    """Thread-safe; answers have one entry for each key, in order."""

    def __init__(
        self, pages: HostPages, config: PluginConfig, *, namespace: bytes, manifest: Manifest
    ) -> None:
        """Raise ConfigError where the backend's configuration is wrong."""
        self.page_bytes = pages.page_bytes
        self.namespace = namespace
        self._staging = HostPool(manifest.shape, _num_slots(config, manifest.shape.slot_bytes))
        self._copies = Copies()
        guard = GuardedBackend(
            self._opener(config),
            self._staging,
            name=config.backend,
            namespace=namespace,
            config=GuardConfig(deadline_s=config.deadline_s),
            manifest=manifest,
        )
        self._store = PageStore(guard, self._staging, namespace=namespace, writer="prefill")

    def wait_open(self, timeout_s: float) -> bool:
        """Wait until it is known whether the store opens; whether it did."""
        guard = self._store.guard
        return guard.wait_settled(timeout_s) and guard.state == "attached"

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        """Say which pages are stored."""
        found: list[bool] = []
        for start in range(0, len(keys), _EXISTS_BATCH):
            found += self._store.exists(keys[start : start + _EXISTS_BATCH])
        return found

    def leading_run(self, keys: Sequence[bytes]) -> int:
        """How many of the first keys are stored without a hole."""
        for start in range(0, len(keys), _EXISTS_BATCH):
            batch = keys[start : start + _EXISTS_BATCH]
            run = self._store.leading_run(batch)
            if run < len(batch):
                return start + run
        return len(keys)

    def read(self, keys: Sequence[bytes], pages: Sequence[_Pieces]) -> list[bool]:
        """Read and check pages, and copy the good ones to their pieces.

        Pages behind a hole are useless and may be left unread.
        """
        found: list[bool] = []
        while len(found) < len(keys) and all(found):
            with self._lent(len(keys) - len(found)) as slots:
                if not slots:
                    self._store.counters.add_pages("prefetch", "no_slot", len(keys) - len(found))
                    break
                batch = slice(len(found), len(found) + len(slots))
                found += self._read(keys[batch], pages[batch], slots)
        return found + [False] * (len(keys) - len(found))

    def write(self, keys: Sequence[bytes], pages: Sequence[_Pieces]) -> list[bool]:
        """Store pages; True once a page is readable by all. What is there is not copied again."""
        stored = self.exists(keys)
        missing = [i for i, is_stored in enumerate(stored) if not is_stored]
        while missing:
            with self._lent(len(missing)) as slots:
                if not slots:
                    self._store.counters.add_pages("write_through", "no_slot", len(missing))
                    break
                batch, missing = missing[: len(slots)], missing[len(slots) :]
                done = self._write([keys[i] for i in batch], [pages[i] for i in batch], slots)
            for i, is_stored in zip(batch, done, strict=True):
                stored[i] = is_stored
            if not all(done):
                break  # full or gone: the rest would fail alike, and cost a copy
        return stored

    def clear(self) -> str:
        """Remove this namespace's pages; what became of it."""
        return self._store.guard.clear()

    def stats(self) -> dict[str, float]:
        """Counters since the start: pages and bytes by path and result, faults, copies."""
        counts = self._store.counters.snapshot()
        named = {f"{path}_{result}_pages": n for (path, result), n in counts.pages.items()}
        named |= {f"{path}_{result}_bytes": n for (path, result), n in counts.num_bytes.items()}
        named |= {f"fault_{name}": n for name, n in counts.faults.items()}
        numbers = {name: float(n) for name, n in named.items()}
        numbers |= {f"{path}_seconds": s for path, s in counts.seconds.items()}
        return numbers | self._copies.snapshot()

    def status(self) -> dict[str, object]:
        """Whether the store is attached, why not, and its own counters."""
        return self._store.status()

    def close(self) -> bool:
        """Let go of the store; False where calls still hang."""
        return self._store.close()

    def _opener(self, config: PluginConfig) -> BackendOpener:
        return backend_opener(
            config.backend, config.config, self._staging, self.namespace, config.dynamic_modules
        )

    def _read(
        self, keys: Sequence[bytes], pages: Sequence[_Pieces], slots: Sequence[int]
    ) -> list[bool]:
        self._require_sizes(pages)
        found = [writer is not None for writer in self._store.load(keys, slots)]
        for is_found, pieces, slot in zip(found, pages, slots, strict=True):
            if is_found:
                scatter(self._staging.address(slot), pieces)
        self._copies.add_out(sum(found), self.page_bytes)
        return found

    def _write(
        self, keys: Sequence[bytes], pages: Sequence[_Pieces], slots: Sequence[int]
    ) -> list[bool]:
        self._require_sizes(pages)
        if self._store.is_attached:  # else the copies would be for nothing; `save` counts them
            for pieces, slot in zip(pages, slots, strict=True):
                gather(pieces, self._staging.address(slot))
            self._copies.add_in(len(slots), self.page_bytes)
        return self._store.save(keys, slots)

    def _require_sizes(self, pages: Sequence[_Pieces]) -> None:
        assert all(size_of(pieces) == self.page_bytes for pieces in pages), self.page_bytes

    @contextmanager
    def _lent(self, num_pages: int) -> Iterator[list[int]]:
        """Staging for the first of so many pages; half of it stays for the other direction."""
        most = max(1, self._staging.num_slots // 2)
        slots = self._staging.alloc_up_to(min(num_pages, most), _SLOT_WAIT_S)
        try:
            yield slots
        finally:
            self._staging.free(slots)


def describe(
    namespace: bytes, pages: HostPages, *, model: str, kv_dtype: str, release_tag: str
) -> Manifest:
    """What tools are told of the namespace."""
    return Manifest(
        namespace=namespace.hex(),
        shape=flat_shape(pages.page_bytes, pages.tokens_per_page),
        model=model,
        kv_dtype=kv_dtype,
        release_tag=release_tag,
    )


def _num_slots(config: PluginConfig, slot_bytes: int) -> int:
    return max(_MIN_SLOTS, config.staging_bytes // slot_bytes)

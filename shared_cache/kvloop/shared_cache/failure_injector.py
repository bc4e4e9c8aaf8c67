"""A storage backend that fails on purpose, by seeded dice: for tests of whatever stands on one."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureSettings:
    """How often what goes wrong: shares within 0 .. 1."""

    seed: int = 0
    errors: float = 0.0
    """Of calls: they raise StorageUnavailable before anything is done."""
    stalls: float = 0.0
    """Of calls: they take `stall_s` longer, then work."""
    stall_s: float = 5.0
    """Seconds; a stall ends early when the settings are changed or the backend is closed."""
    lost_writes: float = 0.0
    """Of pages and records: set and put_small say True and store nothing."""
    misses: float = 0.0
    """Of pages and records: not there, says the store, though they are."""
    flips: float = 0.0
    """Of pages read: one bit is another; needs the pool."""

    def __post_init__(self) -> None:
        for name in ("errors", "stalls", "lost_writes", "misses", "flips"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be within 0 .. 1, got {getattr(self, name)}")
        if self.stall_s < 0:
            raise ValueError(f"stall_s must not be negative, got {self.stall_s}")


NO_FAILURES = FailureSettings()
_KINDS = ("errors", "stalls", "lost_writes", "misses", "flips")


class FailureInjector(StorageBackend):
    """Another backend behind dice; owns it: `close` closes it. Thread-safe.

    `stats`, `clear`, `close`, `objects` are never disturbed.
    """

    def __init__(
        self, backend: StorageBackend, settings: FailureSettings, pool: HostPool | None = None
    ) -> None:
        """Raise ValueError where flips are wanted but there is no pool to flip bits in."""
        self._backend = backend
        self._pool = pool
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(_KINDS, 0)
        self.configure(settings)

    def configure(self, settings: FailureSettings) -> None:
        """From now on; the dice begin anew, and running stalls end."""
        if settings.flips and self._pool is None:
            raise ValueError("flips needs the pool that the backend was opened over")
        with self._lock:
            self._settings = settings
            self._dice = random.Random(settings.seed)
            released, self._released = getattr(self, "_released", None), threading.Event()
        if released is not None:
            released.set()

    @property
    def injected(self) -> dict[str, int]:
        """How often each failure was injected since the start, by the names of the settings."""
        with self._lock:
            return dict(self._counts)

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        self._disturb()
        return self._some_missed(self._backend.exists(keys))

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self._disturb()
        found = self._some_missed(self._backend.get(keys, slots))
        for is_found, slot in zip(found, slots, strict=True):
            if is_found and self._hits("flips"):
                self._flip(slot)
        return found

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self._disturb()
        is_lost = [self._hits("lost_writes") for _ in keys]
        kept = [i for i, lost in enumerate(is_lost) if not lost]
        answers = [True] * len(keys)
        stored = self._backend.set([keys[i] for i in kept], [slots[i] for i in kept])
        for i, is_stored in zip(kept, stored, strict=True):
            answers[i] = is_stored
        return answers

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        self._disturb()
        return self._backend.delete(keys)

    def discard(self, keys: Sequence[bytes]) -> list[bool]:
        self._disturb()
        return self._backend.discard(keys)

    def put_small(self, name: str, value: bytes) -> bool:
        self._disturb()
        return self._hits("lost_writes") or self._backend.put_small(name, value)

    def get_small(self, name: str) -> bytes | None:
        self._disturb()
        return None if self._hits("misses") else self._backend.get_small(name)

    def stats(self) -> dict[str, float]:
        injected = {f"injected_{kind}": float(count) for kind, count in self.injected.items()}
        return self._backend.stats() | injected

    def clear(self) -> None:
        self._backend.clear()

    def close(self) -> None:
        self._released.set()
        self._backend.close()

    def objects(self) -> Iterator[StoredObject]:
        return self._backend.objects()

    def probe(self) -> None:
        self._disturb()
        self._backend.probe()

    def _disturb(self) -> None:
        if self._hits("stalls"):
            with self._lock:
                released, stall_s = self._released, self._settings.stall_s
            released.wait(stall_s)
        if self._hits("errors"):
            raise StorageUnavailable("an injected error")

    def _some_missed(self, found: list[bool]) -> list[bool]:
        return [is_there and not self._hits("misses") for is_there in found]

    def _flip(self, slot: int) -> None:
        assert self._pool is not None
        view = self._pool.group_view(slot, self._roll(self._pool.shape.head_groups))
        view[self._roll(self._pool.shape.payload_bytes)] ^= 1 << self._roll(8)

    def _roll(self, n: int) -> int:
        with self._lock:
            return self._dice.randrange(n)

    def _hits(self, kind: str) -> bool:
        with self._lock:
            share: float = getattr(self._settings, kind)
            is_hit = share > 0 and self._dice.random() < share
            self._counts[kind] += is_hit
            return is_hit

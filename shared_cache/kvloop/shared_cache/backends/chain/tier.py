"""One of the stores that a backend is made of, behind a guard of its own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple

from kvloop.shared_cache.backend import BackendOpener, StorageBackend, StoredObject
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend, GuardState
from kvloop.shared_cache.host_pool import HostPool

_OURS = "="  # before the names of the tier's records; the guard's own have none
_KNOWN = b"+"
_MISSING = b"-"
_NO_EPOCH = b"-"
_CLEAR_S = 30.0
_CLOSE_S = 5.0


class Record(NamedTuple):
    """What a store said of a record."""

    value: bytes | None


class Tier:
    """A store that may fail or stall without its caller: then each answer is None, and at once
    from the second time on, until it works again. Thread-safe.
    """

    def __init__(
        self,
        opener: BackendOpener,
        pool: HostPool,
        *,
        name: str,
        namespace: bytes,
        deadline_s: float,
    ) -> None:
        self.name = name
        self._opener = opener
        self._in_use = _SlotsInUse()
        self._guard = GuardedBackend(
            lambda: _Inner(opener(), self._in_use),
            pool,
            name=name,
            namespace=namespace,
            config=GuardConfig(deadline_s=deadline_s),
        )

    @property
    def state(self) -> GuardState:
        """As a guard's."""
        return self._guard.state

    @property
    def is_up(self) -> bool:
        """Whether calls are let through."""
        return self.state == "attached"

    @property
    def last_error(self) -> str | None:
        """Why it was last given up."""
        return self._guard.last_error

    def wait_settled(self, timeout_s: float) -> None:
        """Until it is known whether the store is there."""
        self._guard.wait_settled(timeout_s)

    def exists(self, keys: Sequence[bytes]) -> list[bool] | None:
        """As the backend's; None where it did not answer. So for all below."""
        return self._guard.exists(keys) if keys else []

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool] | None:
        """After None see `is_using`."""
        return self._guard.get(keys, slots) if keys else []

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool] | None:
        """The guard keeps the slots of a call that goes on."""
        return self._guard.set(keys, slots) if keys else []

    def delete(self, keys: Sequence[bytes]) -> list[bool] | None:
        return self._guard.delete(keys) if keys else []

    def discard(self, keys: Sequence[bytes]) -> list[bool] | None:
        return self._guard.discard(keys) if keys else []

    def put_small(self, name: str, value: bytes) -> bool:
        """False where it was not stored, or perhaps not."""
        return self._guard.put_small(_OURS + name, value)

    def get_small(self, name: str) -> Record | None:
        """None where there was no answer, as apart from a record that is not there."""
        answer = self._guard.get_small(_OURS + name)
        if answer is None:
            return None
        return Record(answer[1:] if answer[:1] == _KNOWN else None)

    def clear(self) -> bool:
        """Whether the namespace is empty now."""
        return self._guard.clear(_CLEAR_S) == "cleared"

    def is_using(self, slots: Sequence[int]) -> bool:
        """Whether a `get` that was given up may still write to one of these."""
        return self._in_use.overlap(slots)

    def objects(self) -> Iterator[StoredObject]:
        """Lists over a connection of its own; raises what the backend raises."""
        with closing(self._opener()) as backend:
            yield from backend.objects()

    def stats(self) -> dict[str, float]:
        """The backend's and the guard's counters, and `up`; never blocks."""
        return {**self._guard.status()["stats"], "up": float(self.is_up)}

    def close(self) -> None:
        """Calls that hang are left behind after some seconds."""
        self._guard.close(_CLOSE_S)


class _SlotsInUse:
    """Which slots calls under way are reading pages into."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: Counter[int] = Counter()

    def overlap(self, slots: Sequence[int]) -> bool:
        with self._lock:
            return any(self._slots[slot] > 0 for slot in slots)

    @contextmanager
    def during(self, slots: Sequence[int]) -> Iterator[None]:
        with self._lock:
            self._slots.update(slots)
        try:
            yield
        finally:
            with self._lock:
                self._slots.subtract(slots)
                self._slots += Counter()  # drops the zeros


class _Inner(StorageBackend):
    """The store as the tier's guard sees it: it keeps no epoch there on the guard's behalf.

    The outer backend's guard keeps the one epoch that counts; a second one would be an object in
    the store of nodes that only looked.
    """

    def __init__(self, backend: StorageBackend, in_use: _SlotsInUse) -> None:
        self._backend = backend
        self._in_use = in_use

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        return self._backend.exists(keys)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        with self._in_use.during(slots):
            return self._backend.get(keys, slots)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return self._backend.set(keys, slots)

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        return self._backend.delete(keys)

    def discard(self, keys: Sequence[bytes]) -> list[bool]:
        return self._backend.discard(keys)

    def put_small(self, name: str, value: bytes) -> bool:
        return self._backend.put_small(name.removeprefix(_OURS), value)

    def get_small(self, name: str) -> bytes | None:
        if not name.startswith(_OURS):
            self._backend.probe()
            return _NO_EPOCH
        value = self._backend.get_small(name.removeprefix(_OURS))
        return _MISSING if value is None else _KNOWN + value

    def stats(self) -> dict[str, float]:
        return self._backend.stats()

    def clear(self) -> None:
        self._backend.clear()

    def close(self) -> None:
        self._backend.close()

    def probe(self) -> None:
        self._backend.probe()

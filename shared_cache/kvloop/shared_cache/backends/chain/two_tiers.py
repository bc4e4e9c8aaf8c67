"""Two stores as one: what reads, deletes and lists; the first is asked before the second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.backends.chain.promoter import Promoter
from kvloop.shared_cache.backends.chain.tier import Tier
from kvloop.shared_cache.backends.chain.union import either, listed_once, rest_of
from kvloop.shared_cache.storage_errors import StorageUnavailable

_OPEN_S = 10.0
_FORGET_S = 1.0


class TwoTiers(StorageBackend):
    """Read-through and deletes; how the stores are written is the subclass's.

    Each store is behind a guard of its own, so that a fault or a stall of one costs what only it
    has, and nothing else. Where neither answers, StorageUnavailable is raised.
    """

    def __init__(self, kind: str, first: Tier, second: Tier) -> None:
        """Raise StorageUnavailable where neither store is there; one of them is enough."""
        self._kind = kind
        self._tiers = self._first, self._second = first, second
        self._promoter: Promoter | None = None
        """Into the first store, of what was read from the second; None: not wanted."""
        self._lock = threading.Lock()
        counts = (f"{first.name}_hits", f"{second.name}_hits", f"{first.name}_stalled_pages")
        self._counts = dict.fromkeys(counts, 0.0)
        self._require_one()

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        first = self._first.exists(keys)
        rest = rest_of(first, len(keys))
        second = self._second.exists([keys[i] for i in rest])
        return self._answer(first, rest, second)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        first = self._first.get(keys, slots)
        if first is None and self._first.is_using(slots):
            # A late write to a slot that the second store has filled could spoil a checked page.
            self._count(f"{self._first.name}_stalled_pages", len(keys))
            return [False] * len(keys)
        rest = rest_of(first, len(keys))
        rest_keys, rest_slots = [keys[i] for i in rest], [slots[i] for i in rest]
        second = self._second.get(rest_keys, rest_slots)
        self._count(f"{self._first.name}_hits", sum(first or ()))
        self._count(f"{self._second.name}_hits", sum(second or ()))
        if self._promoter is not None and second:
            hits = [i for i, is_found in enumerate(second) if is_found]
            self._promoter.offer([rest_keys[i] for i in hits], [rest_slots[i] for i in hits])
        return self._answer(first, rest, second)

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        """Where one store is down, a page that it has stays there."""
        self._forget(keys)
        first, second = self._first.delete(keys), self._second.delete(keys)
        if first is None and second is None:
            raise self._neither()
        return either(first, second)

    def discard(self, keys: Sequence[bytes]) -> list[bool]:
        """From the store that a read takes each page from: the other's copy may be a good one."""
        self._forget(keys)
        in_second = set(rest_of(self._first.exists(keys), len(keys)))
        first = self._first.discard([key for i, key in enumerate(keys) if i not in in_second])
        second = self._second.discard([keys[i] for i in sorted(in_second)])
        if first is None and second is None:
            raise self._neither()
        removed = iter(first or ()), iter(second or ())
        return [next(removed[i in in_second], False) for i in range(len(keys))]

    def clear(self) -> None:
        """Raise StorageUnavailable where a store may have kept something."""
        self._forget(None)
        is_cleared = {tier.name: tier.clear() for tier in self._tiers}
        if left := [name for name, is_done in is_cleared.items() if not is_done]:
            raise StorageUnavailable(
                f"storage backend {self._kind!r}: {' and '.join(left)} was not cleared"
            )

    def stats(self) -> dict[str, float]:
        with self._lock:
            stats = dict(self._counts)
        for tier in self._tiers:
            stats |= {f"{tier.name}_{name}": value for name, value in tier.stats().items()}
        return stats | (self._promoter.stats() if self._promoter is not None else {})

    def close(self) -> None:
        if self._promoter is not None:
            self._promoter.close()
        for tier in self._tiers:
            tier.close()

    def objects(self) -> Iterator[StoredObject]:
        """What either has; records as the second store, that all share, lists them."""
        return listed_once(self._second.objects(), self._first.objects())

    def _forget(self, keys: Sequence[bytes] | None) -> None:
        """Before these pages, or all, are deleted: nothing in the background may bring them
        back."""
        if self._promoter is not None:
            self._promoter.forget(None if keys is None else frozenset(keys), _FORGET_S)

    def _require_one(self) -> None:
        until = time.monotonic() + _OPEN_S
        for tier in self._tiers:
            tier.wait_settled(max(0.0, until - time.monotonic()))
        if not any(tier.is_up for tier in self._tiers):
            error = self._neither()
            for tier in self._tiers:
                tier.close()
            raise error

    def _answer(
        self, first: list[bool] | None, rest: Sequence[int], second: list[bool] | None
    ) -> list[bool]:
        if first is None and second is None:
            raise self._neither()
        answer = list(first) if first is not None else [False] * len(rest)
        for i, is_found in zip(rest, second or [False] * len(rest), strict=True):
            answer[i] = is_found
        return answer

    def _neither(self) -> StorageUnavailable:
        reasons = "; ".join(f"{tier.name}: {tier.last_error}" for tier in self._tiers)
        return StorageUnavailable(f"storage backend {self._kind!r}: no answer; {reasons}")

    def _count(self, name: str, n: int) -> None:
        with self._lock:
            self._counts[name] = self._counts.get(name, 0.0) + n

"""Who owns which slot of a pool: counts alone, no memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from kvloop.shared_cache.errors import ConfigError


class SlotOwners:
    """Slots counted by their owners; thread-safe.

    A slot has one owner after `alloc`; `retain` adds one, `free` takes one away, and the slot can
    be allocated again when none is left. So a storage call that outlives its deadline keeps the
    memory it still reads or writes, whatever its caller does.
    """

    def __init__(self, num_slots: int) -> None:
        """Raise ConfigError where there would be no slot."""
        if num_slots <= 0:
            raise ConfigError(f"host pool: num_slots must be positive, got {num_slots}")
        self.num_slots = num_slots
        self._freed = threading.Condition()
        self._owners = [0] * num_slots
        self._free = list(range(num_slots - 1, -1, -1))

    @property
    def num_free(self) -> int:
        """Slots that can be allocated now."""
        return len(self._free)

    def is_shared(self, slot: int) -> bool:
        """Whether one owner's `free` would not free it."""
        return self._owners[slot] > 1

    def alloc(self, n: int) -> list[int] | None:
        """Take `n` slots, or none at all where fewer are free."""
        assert n >= 0
        with self._freed:
            return self._take(n) if n <= len(self._free) else None

    def alloc_up_to(self, n: int, timeout_s: float = 0.0) -> list[int]:
        """Take what is free, at most `n`; waits for the first one, and is empty at the deadline."""
        assert n >= 0
        with self._freed:
            if n:
                self._freed.wait_for(lambda: self._free, timeout_s)
            return self._take(min(n, len(self._free)))

    def retain(self, slots: Sequence[int]) -> None:
        """Add an owner to each slot, which must be allocated."""
        with self._freed:
            for slot in slots:
                assert self._owners[slot] > 0, f"slot {slot} is free"
                self._owners[slot] += 1

    def free(self, slots: Sequence[int]) -> None:
        """Take an owner from each slot."""
        with self._freed:
            for slot in slots:
                assert self._owners[slot] > 0, f"slot {slot} was freed twice"
                self._owners[slot] -= 1
                if not self._owners[slot]:
                    self._free.append(slot)
            self._freed.notify_all()

    def _take(self, n: int) -> list[int]:
        slots = [self._free.pop() for _ in range(n)]
        for slot in slots:
            self._owners[slot] = 1
        return slots

"""L3, simulated: pages by key with the role that wrote them, the least recently used leaves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from kvloop.shared_cache.wire import Role


class SharedStore:
    """One for the whole cluster. `capacity` in pages; None: it forgets nothing."""

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.num_evicted = 0
        self._writers: OrderedDict[bytes, Role] = OrderedDict()

    def __len__(self) -> int:
        return len(self._writers)

    def __contains__(self, key: bytes) -> bool:
        return key in self._writers

    def leading_run(self, keys: Sequence[bytes]) -> int:
        """How many leading pages are here."""
        for count, key in enumerate(keys):
            if key not in self._writers:
                return count
        return len(keys)

    def load(self, keys: Sequence[bytes]) -> list[Role]:
        """Read leading pages, as far as they are here: who wrote each."""
        keys = keys[: self.leading_run(keys)]
        for key in reversed(keys):  # a chain's first page is the last to leave
            self._writers.move_to_end(key)
        return [self._writers[key] for key in keys]

    def put(self, keys: Sequence[bytes], writer: Role) -> int:
        """Write pages; those that are here stay as they are. How many were new."""
        fresh = [key for key in keys if key not in self._writers]
        for key in reversed(fresh):
            self._writers[key] = writer
        while self.capacity is not None and len(self._writers) > self.capacity:
            self._writers.popitem(last=False)
            self.num_evicted += 1
        return len(fresh)

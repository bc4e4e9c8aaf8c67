"""Transfers as SGLang's storage metrics want them: pages and GB/s of each since last asked."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

Direction = Literal["prefetch", "backup"]
_MOST = 4096  # transfers remembered, where nobody asks


class _Transfer(NamedTuple):
    direction: Direction
    num_pages: int
    gb_per_s: float


class Rates:
    """Thread-safe; remembers nothing unless it is enabled."""

    def __init__(self, is_enabled: bool) -> None:
        self._is_enabled = is_enabled
        self._lock = threading.Lock()
        self._transfers: deque[_Transfer] = deque(maxlen=_MOST)

    @contextmanager
    def timed(self, direction: Direction, num_pages: int, page_bytes: int) -> Iterator[None]:
        """Remember what happens inside as one transfer."""
        start = time.monotonic()
        yield
        if self._is_enabled and num_pages:
            seconds = max(time.monotonic() - start, 1e-9)
            transfer = _Transfer(direction, num_pages, num_pages * page_bytes / seconds / 1e9)
            with self._lock:
                self._transfers.append(transfer)

    def move_to(self, metrics: Any) -> None:
        """Append what was remembered to SGLang's StorageMetrics, and forget it."""
        with self._lock:
            transfers = list(self._transfers)
            self._transfers.clear()
        for direction, num_pages, gb_per_s in transfers:
            getattr(metrics, f"{direction}_pgs").append(num_pages)
            getattr(metrics, f"{direction}_bandwidth").append(gb_per_s)

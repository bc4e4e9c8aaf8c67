"""The copies that SGLang's pages cost, since its pool has no room for a trailer."""

from __future__ import annotations

import threading


class Copies:
    """Pages copied between SGLang's pool and the staging pool; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(
            ("copied_in_pages", "copied_in_bytes", "copied_out_pages", "copied_out_bytes"), 0.0
        )

    def add_in(self, num_pages: int, page_bytes: int) -> None:
        """Count pages copied out of SGLang's pool, to be stored."""
        self._add("copied_in", num_pages, page_bytes)

    def add_out(self, num_pages: int, page_bytes: int) -> None:
        """Count pages copied into SGLang's pool, read and checked."""
        self._add("copied_out", num_pages, page_bytes)

    def snapshot(self) -> dict[str, float]:
        """Totals since the start."""
        with self._lock:
            return dict(self._counts)

    def _add(self, name: str, num_pages: int, page_bytes: int) -> None:
        with self._lock:
            self._counts[f"{name}_pages"] += num_pages
            self._counts[f"{name}_bytes"] += num_pages * page_bytes

"""Pools without a model: the content of a page is its key, so that every hit can be checked."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.shared_cache.hicache_parts import LayerMove, Move


class Done:
    """A move that has ended."""

    @property
    def is_done(self) -> bool:
        return True

    @property
    def seconds(self) -> float | None:
        return 0.0

    def wait(self) -> None:
        """Nothing is under way."""

    def hold_device(self) -> None:
        """Nothing is under way."""

    def before_layer(self, layer: int) -> None:
        """Nothing is under way."""

    def await_layer(self, layer: int) -> None:
        """Nothing is under way."""


_DONE = Done()


class Memory:
    """Pages of L1 and slots of L2, and the mover between them."""

    def __init__(self, num_pages: int, num_slots: int) -> None:
        self.pages = [b""] * num_pages
        self.slots = [b""] * num_slots

    def backup(self, pages: Sequence[int], slots: Sequence[int]) -> Move:
        """L1 to L2."""
        for page, slot in zip(pages, slots, strict=True):
            self.slots[slot] = self.pages[page]
        return _DONE

    def load_back(self, pages: Sequence[int], slots: Sequence[int]) -> LayerMove:
        """L2 to L1."""
        for page, slot in zip(pages, slots, strict=True):
            self.pages[page] = self.slots[slot]
        return _DONE

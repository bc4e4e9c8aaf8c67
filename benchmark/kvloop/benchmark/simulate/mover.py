"""Copies between L1 and L2 that take time on the bus; their content is not simulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvloop.benchmark.simulate.clock import Clock
from kvloop.benchmark.simulate.link import Link
from kvloop.shared_cache.hicache_parts import LayerMove, Move


class TimedMove:
    """A move that has ended when its time has come."""

    def __init__(self, clock: Clock, ends_at: float) -> None:
        self._clock, self._began_at = clock, clock.now
        self.ends_at = ends_at

    @property
    def is_done(self) -> bool:
        return self._clock.now >= self.ends_at

    @property
    def seconds(self) -> float | None:
        return self.ends_at - self._began_at if self.is_done else None

    def wait(self) -> None:
        assert self.is_done, "nothing waits in simulated time"

    def hold_device(self) -> None:
        """The device's later work is not simulated byte for byte."""

    def before_layer(self, layer: int) -> None:
        raise AssertionError("the node's step counts the time")

    def await_layer(self, layer: int) -> None:
        raise AssertionError("the node's step counts the time")


class TimedMover:
    """The bus of one node, a way up and a way down; `moved` is called when a move has ended."""

    def __init__(
        self,
        clock: Clock,
        bytes_per_s: float,
        page_bytes: float,
        *,
        is_instant: bool,
        moved: Callable[[], None],
    ) -> None:
        self.up, self.down = Link(bytes_per_s), Link(bytes_per_s)
        self._clock, self._page_bytes = clock, page_bytes
        self.is_instant, self._moved = is_instant, moved
        self.loaded_at = 0.0
        """When the newest load-back will be, or was, on the device."""

    def backup(self, pages: Sequence[int], slots: Sequence[int]) -> Move:
        """L1 to L2."""
        return self._move(self.down.send(self._clock.now, len(pages) * self._page_bytes))

    def load_back(self, pages: Sequence[int], slots: Sequence[int]) -> LayerMove:
        """L2 to L1."""
        self.loaded_at = self.up.send(self._clock.now, len(pages) * self._page_bytes)
        return self._move(self.loaded_at)

    def _move(self, ends_at: float) -> TimedMove:
        if self.is_instant:
            return TimedMove(self._clock, self._clock.now)
        self._clock.at(ends_at, self._moved)
        return TimedMove(self._clock, ends_at)

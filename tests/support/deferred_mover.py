"""A mover of real bytes that copies at the last moment it may: whatever is reused early shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kvloop.shared_cache.errors import TransferError
from kvloop.shared_cache.host_pool import HostPool


class DeferredMove:
    """Ends when the test says so; see `hicache_parts.LayerMove`."""

    def __init__(
        self, mover: DeferredMover, path: str, pages: Sequence[int], slots: Sequence[int]
    ) -> None:
        self.path, self.pages, self.slots = path, list(pages), list(slots)
        self.num_layers_in = 0
        self.is_held = False
        """Later work on the device comes after it."""
        self.error: Exception | None = None
        self._mover = mover
        self._sources = [
            move
            for move in mover.under_way()
            if path == "load_back" and not set(move.slots).isdisjoint(slots)
        ]
        self._num_layers = mover.host.shape.num_layers

    @property
    def num_bytes(self) -> int:
        return len(self.pages) * self._mover.host.shape.payload_bytes

    @property
    def is_done(self) -> bool:
        return self.error is not None or self.num_layers_in == self._num_layers

    @property
    def seconds(self) -> float | None:
        return 0.001 if self.is_done else None

    def wait(self) -> None:
        self.await_layer(self._num_layers - 1)

    def hold_device(self) -> None:
        self.is_held = True

    def before_layer(self, layer: int) -> None:
        self.await_layer(layer)

    def await_layer(self, layer: int) -> None:
        """Here waiting is what makes the copy happen."""
        while self.num_layers_in <= layer and self.error is None:
            self.step()
        if self.error is not None:
            raise self.error

    def step(self) -> None:
        """Copy the next layer; after a copy that failed, as on a device, what needs it fails."""
        if any(move.error is not None for move in self._sources):
            self.fail()
        if self.is_done:
            return
        layer, mover = self.num_layers_in, self._mover
        if self.path == "load_back":
            mover.before_device_write()
            mover.device[self.pages, layer] = mover.host.payload(0)[self.slots, layer]
        else:
            mover.host.payload(0)[self.slots, layer] = mover.device[self.pages, layer]
        self.num_layers_in += 1

    def finish(self) -> None:
        """Copy all that is left."""
        while not self.is_done:
            self.step()

    def fail(self) -> None:
        """End now, with what has been copied so far."""
        if not self.is_done:
            self.error = TransferError("a test broke this move")


class DeferredMover:
    """Between `device`, uint8 [page, layer, k|v, token, head, bytes], and the host pool."""

    def __init__(self, num_pages: int, host: HostPool) -> None:
        shape = host.payload(0).shape[1:]
        self.device: npt.NDArray[np.uint8] = np.zeros((num_pages, *shape), np.uint8)
        self.host = host
        self.moves: list[DeferredMove] = []
        """Not ended."""
        self.fails_at_once = False
        """Backups to come fail before they have begun."""

    def backup(self, pages: Sequence[int], slots: Sequence[int]) -> DeferredMove:
        move = self._begin("backup", pages, slots)
        if self.fails_at_once:
            move.fail()
        return move

    def load_back(self, pages: Sequence[int], slots: Sequence[int]) -> DeferredMove:
        return self._begin("load_back", pages, slots)

    def under_way(self) -> list[DeferredMove]:
        """Oldest first."""
        self.moves = [move for move in self.moves if not move.is_done]
        return self.moves

    def finish(self) -> None:
        """End all moves."""
        for move in self.under_way():
            move.finish()

    def write(self, page: int, content: npt.NDArray[np.uint8]) -> None:
        """What the model does with a device page."""
        self.before_device_write()
        self.device[page] = content

    def before_device_write(self) -> None:
        """Moves that hold the device come first, and no others."""
        for move in self.under_way():
            if move.is_held:
                move.finish()

    def _begin(self, path: str, pages: Sequence[int], slots: Sequence[int]) -> DeferredMove:
        assert len(pages) == len(slots) and pages
        move = DeferredMove(self, path, pages, slots)
        self.moves.append(move)
        return move

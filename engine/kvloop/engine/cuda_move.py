"""Page moves of a CUDA device, as the caller sees them: events on the mover's streams."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kvloop.engine.cuda_sync import await_event, has_happened
from kvloop.shared_cache.errors import TransferError


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaMove:
    """See `kvloop.engine.page_mover.Move`."""

    device: torch.device
    num_bytes: int
    began: torch.cuda.Event
    ended: torch.cuda.Event
    pages: frozenset[int]
    slots: frozenset[int]

    @property
    def is_done(self) -> bool:
        try:
            return has_happened(self.ended)
        except TransferError:
            return True  # a device that failed moves nothing more; `wait` says what failed

    @property
    def seconds(self) -> float | None:
        return self.began.elapsed_time(self.ended) / 1e3 if has_happened(self.ended) else None

    def wait(self) -> None:
        await_event(self.ended)

    def hold_device(self) -> None:
        torch.cuda.current_stream(self.device).wait_event(self.ended)

    def touches(self, pages: frozenset[int], slots: frozenset[int]) -> bool:
        """Whether one of these is read or written by this move."""
        return not (self.pages.isdisjoint(pages) and self.slots.isdisjoint(slots))


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaLayerMove(CudaMove):
    """See `kvloop.engine.page_mover.LayerMove`."""

    first_layers: Sequence[int]
    """Where each span of layers that is moved in one go begins, ascending."""
    arrivals: Sequence[torch.cuda.Event]
    """Of each span."""

    def before_layer(self, layer: int) -> None:
        torch.cuda.current_stream(self.device).wait_event(self._arrival(layer))

    def await_layer(self, layer: int) -> None:
        await_event(self._arrival(layer))

    def _arrival(self, layer: int) -> torch.cuda.Event:
        return self.arrivals[bisect_right(self.first_layers, layer) - 1]

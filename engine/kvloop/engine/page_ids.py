"""The page or slot ids of a move, on the host and, uploaded when first asked for, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kvloop.engine.page_grid import Ids


class PageIds:
    """int64 ids. `tensor` belongs to the stream it was first asked for on, and to no other."""

    def __init__(self, host: Ids, device: torch.device, tensor: torch.Tensor | None = None) -> None:
        self.host = host
        self._device = device
        self._tensor = tensor
        self._parts: dict[int, list[PageIds]] = {}
        self.memo: dict[object, object] = {}
        """What was worked out for these ids, for as long as the move is put together."""

    @classmethod
    def of(cls, ids: Sequence[int], device: torch.device) -> PageIds:
        """From a list."""
        return cls(np.asarray(ids, np.int64), device)

    @classmethod
    def first(cls, count: int, device: torch.device) -> PageIds:
        """0, 1, ... on the device at once, where every stream may read them later."""
        ids = np.arange(count, dtype=np.int64)
        return cls(ids, device, torch.from_numpy(ids).to(device))

    def __len__(self) -> int:
        return len(self.host)

    def parts(self, length: int) -> list[PageIds]:
        """Cut into parts of at most `length` ids; the same objects when asked again."""
        if length not in self._parts:
            starts = range(0, len(self), length)
            cut = [PageIds(self.host[at : at + length], self._device) for at in starts]
            self._parts[length] = cut if len(cut) > 1 else [self]
        return self._parts[length]

    def head(self, count: int) -> PageIds:
        """The first `count` ids."""
        return PageIds(self.host[:count], self._device, self.tensor[:count])

    @property
    def tensor(self) -> torch.Tensor:
        """int64 on the device; uploaded without a wait, in the order of the current stream."""
        if self._tensor is None:
            self._tensor = (
                torch.from_numpy(self.host).pin_memory().to(self._device, non_blocking=True)
            )
        return self._tensor

"""A prompt's KV on a detour through host memory: what does that change in a model's logits?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from engine_runs import Runs

from kvloop.engine.batch import Segment, make_batch
from kvloop.engine.page_mover import make_mover
from kvloop.engine.transformer import Transformer
from kvloop.shared_cache.hicache_names import Codec, HostLayout
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape


class LogitsChange(NamedTuple):
    """How far logits are from others."""

    max_abs: float
    relative: float
    """Of the largest of the others' magnitudes."""
    divergence: float
    """Kullback-Leibler, of the distributions at temperature 1."""


def logits_change(found: torch.Tensor, wanted: torch.Tensor) -> LogitsChange:
    """Compare logits `[vocab]`."""
    largest = float((found - wanted).abs().max())
    p, q = wanted.log_softmax(-1), found.log_softmax(-1)
    divergence = float((p.exp() * (p - q)).sum())
    return LogitsChange(largest, largest / float(wanted.abs().max()), divergence)


class PageDetour:
    """A prompt whose pages but the last take the way through host memory before the last chunk."""

    def __init__(self, model: Transformer, prompt: list[int]) -> None:
        self.runs = Runs(model, num_pages=64)
        self.prompt = prompt
        self.sequence = self.runs.start(prompt, 1)
        self.num_full = (len(prompt) - 1) // self.runs.page_size
        self.runs.step([(self.sequence, self.num_full * self.runs.page_size)])

        self._pages = self.sequence.pages[: self.num_full]
        self._plain = self.runs.pool.tensor[:, :, self._pages].clone()

    def restore(self) -> None:
        """The pages as they were computed."""
        self.runs.pool.tensor[:, :, self._pages] = self._plain

    def take(
        self,
        codec: Codec,
        layout: HostLayout = "page_first_direct",
        damage: Callable[[npt.NDArray[np.float32]], None] | None = None,
    ) -> None:
        """Out and back again; `damage` is done to the scales meanwhile."""
        config, pool = self.runs.model.config, self.runs.pool
        shape = PageShape(
            num_layers=config.layers,
            page_size=pool.page_size,
            num_kv_heads=config.kv_heads,
            head_size=config.head_size,
            itemsize=pool.dtype.itemsize,
            codec=codec,
        )
        host = HostPool(shape, self.num_full, layout)
        mover = make_mover(pool, host, "kernel")
        slots = list(range(self.num_full))
        mover.backup(self._pages, slots).wait()
        pool.tensor[:, :, self._pages] = 0
        scales = host.scales(0)
        if damage is not None and scales is not None:
            damage(scales)
        mover.load_back(self._pages, slots).wait()
        mover.close()

    def logits(self) -> torch.Tensor:
        """After the prompt's last token."""
        start = self.num_full * self.runs.page_size
        length = len(self.prompt) - start
        segment = Segment(self.sequence.pages, start, length, True)
        batch = make_batch([(self.prompt[start:], segment)], self.runs.page_size, "cpu")
        return self.runs.model.forward(batch, self.runs.pool)[0]

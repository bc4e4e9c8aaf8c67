"""The device pool (L1): the KV pages that attention reads and writes."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np
import torch

from kvloop.engine.model_config import ModelConfig
from kvloop.shared_cache.errors import ConfigError


class KVPool:
    """One tensor `[layer, k|v, page, token, kv head, head size]`.

    On CPU it is page-aligned anonymous memory, so that a transfer engine can register it.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_pages: int,
        page_size: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        assert num_pages > 0 and page_size > 0
        self.num_pages = num_pages
        self.page_size = page_size
        self.dtype = dtype
        self.device = torch.device(device)
        shape = (config.layers, 2, num_pages, page_size, config.kv_heads, config.head_size)
        self.tensor = _allocate(shape, dtype, self.device)
        num_slots = num_pages * page_size
        heads = self.tensor.view(config.layers, 2, num_slots, config.kv_heads, config.head_size)
        # Views made once: slicing a six-dimensional tensor for every layer of every step adds up.
        self._slots = [heads[layer] for layer in range(config.layers)]
        self._heads = [
            (heads[i, 0].permute(1, 0, 2)[None], heads[i, 1].permute(1, 0, 2)[None])
            for i in range(config.layers)
        ]
        self._pages = [self.tensor[layer] for layer in range(config.layers)]

    @property
    def address(self) -> int:
        """Address of the first byte."""
        return self.tensor.data_ptr()

    @property
    def num_bytes(self) -> int:
        """Size of the whole pool."""
        return self.tensor.nbytes

    @property
    def layer_stride(self) -> int:
        """Bytes from one layer to the next."""
        return self.tensor.stride(0) * self.tensor.itemsize

    @property
    def kv_stride(self) -> int:
        """Bytes from a layer's K to its V."""
        return self.tensor.stride(1) * self.tensor.itemsize

    @property
    def page_bytes(self) -> int:
        """Bytes of one page's K (or V) in one layer."""
        return self.tensor.stride(2) * self.tensor.itemsize

    def write(self, layer: int, kv: torch.Tensor, slots: torch.Tensor) -> None:
        """Store `[k|v, tokens, kv heads, head size]`, of the pool's dtype, at int64 `slots`."""
        self._slots[layer].index_copy_(1, slots, kv)

    def heads_view(self, layer: int, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V `[1, kv head, count, head size]` of slots [first, first + count); no copy."""
        k, v = self._heads[layer]
        return k.narrow(2, first, count), v.narrow(2, first, count)

    def heads_gather(
        self, layer: int, pages: torch.Tensor, count: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of the first `count` tokens of scattered pages (int64); copies them."""
        both = self._pages[layer].index_select(1, pages).flatten(1, 2)[:, :count]
        k, v = both.permute(0, 2, 1, 3)[:, None].unbind(0)
        return k, v


def _too_large(num_bytes: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"--max-total-tokens: a KV pool of {num_bytes / 1e9:.1f} GB does not fit in memory "
        f"({error}); give fewer tokens"
    )


def _allocate(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    count = int(np.prod(shape, dtype=np.int64))
    if device.type != "cpu":
        try:
            return torch.zeros(shape, dtype=dtype, device=device)
        except torch.OutOfMemoryError as error:
            raise _too_large(count * dtype.itemsize, error) from error
    try:
        memory = mmap.mmap(-1, count * dtype.itemsize)
    except OSError as error:
        raise _too_large(count * dtype.itemsize, error) from error
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape)

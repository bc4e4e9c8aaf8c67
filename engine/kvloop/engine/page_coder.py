"""Between the device pool and a stage: pages gathered and encoded, decoded and scattered."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

import torch

from kvloop.engine.codec import Quantised, code_dtype, decode, encode
from kvloop.engine.page_stage import Stage
from kvloop.shared_cache.hicache_names import Codec


class PageCoder(Protocol):
    """Queues work on the current stream; `heads` is `[layer, k|v, page, token, head, size]`."""

    def to_stage(self, heads: torch.Tensor, pages: torch.Tensor, stage: Stage) -> None: ...

    def from_stage(self, heads: torch.Tensor, pages: torch.Tensor, stage: Stage) -> None: ...


def make_coder(codec: Codec, device: torch.device) -> PageCoder:
    """The fastest that the device and what is installed allow."""
    if codec == "none":
        return AsIs()
    if find_spec("triton") is not None:
        from kvloop.engine.codec_kernel import can_fuse

        if can_fuse(codec, device):
            return Fused(codec)
    return Stepwise(codec)


class AsIs:
    """The same bytes."""

    def to_stage(self, heads: torch.Tensor, pages: torch.Tensor, stage: Stage) -> None:
        stage.payload.view(heads.dtype).copy_(heads.index_select(2, pages).movedim(2, 0))

    def from_stage(self, heads: torch.Tensor, pages: torch.Tensor, stage: Stage) -> None:
        heads.index_copy_(2, pages, stage.payload.view(heads.dtype).movedim(0, 2))


class Stepwise:
    """The codec by torch's operators."""

    def __init__(self, codec: Quantised) -> None:
        self._codec: Quantised = codec

    def to_stage(self, heads: torch.Tensor, pages: torch.Tensor, stage: Stage) -> None:
        encoded = encode(heads.index_select(2, pages).movedim(2, 0), self._codec)
        stage.payload.copy_(encoded.codes.view(torch.uint8))
        stage.scales.copy_(encoded.scales)

    def from_stage(self, heads: torch.Tensor, pages: torch.Tensor, stage: Stage) -> None:
        codes = stage.payload.view(code_dtype(self._codec))
        heads.index_copy_(2, pages, decode(codes, stage.scales, heads.dtype).movedim(0, 2))


class Fused:
    """The codec in one pass."""

    def __init__(self, codec: Quantised) -> None:
        self._codec: Quantised = codec

    def to_stage(self, heads: torch.Tensor, pages: torch.Tensor, stage: Stage) -> None:
        from kvloop.engine.codec_kernel import encode_pages

        encode_pages(heads, pages, stage.payload, stage.scales, self._codec)

    def from_stage(self, heads: torch.Tensor, pages: torch.Tensor, stage: Stage) -> None:
        from kvloop.engine.codec_kernel import decode_pages

        decode_pages(heads, pages, stage.payload, stage.scales, self._codec)

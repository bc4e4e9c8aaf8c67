"""Blocks and checksums of one layer's pages in a device pool, as the hand-off addresses them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import xxhash

from kvloop.engine.kv_pool import KVPool
from kvloop.engine.transfer import Block, merge
from kvloop.shared_cache.wire import KVTarget


def layer_blocks(
    kv: KVPool, target: KVTarget, layer: int, pages: Sequence[int], target_pages: Sequence[int]
) -> list[Block]:
    """Writes that copy `layer` of local `pages` into the peer's `target_pages`, K then V."""
    blocks = []
    for half in range(2):
        source = kv.address + layer * kv.layer_stride + half * kv.kv_stride
        remote = target.base + layer * target.layer_stride + half * target.kv_stride
        blocks += [
            Block(source + mine * kv.page_bytes, remote + theirs * kv.page_bytes, kv.page_bytes)
            for mine, theirs in zip(pages, target_pages, strict=True)
        ]
    return merge(blocks)


def layer_checksum(kv: KVPool, layer: int, pages: Sequence[int]) -> int:
    """xxh3_64 over the pages' K blocks in order, then their V blocks."""
    digest = xxhash.xxh3_64()
    for half in range(2):
        block = _select(kv.tensor[layer, half], pages).contiguous().cpu()
        digest.update(block.view(torch.uint8).numpy().reshape(-1).data)
    return digest.intdigest()


def _select(pool: torch.Tensor, pages: Sequence[int]) -> torch.Tensor:
    first = pages[0]
    if list(pages) == list(range(first, first + len(pages))):
        return pool[first : first + len(pages)]
    return pool.index_select(0, torch.tensor(pages, device=pool.device))

"""Attention over paged KV, one call for each segment of the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from kvloop.engine.batch import Batch, Segment
from kvloop.engine.kv_pool import KVPool


@dataclass(frozen=True, slots=True)
class Span:
    """One segment's part of the plan: made once a step, used in every layer."""

    first_row: int
    rows: int
    context: int
    """Tokens to attend to: all up to the segment's last."""
    first_slot: int | None
    """Set where the pages are one ascending run: KV is then a view of the pool."""
    pages: torch.Tensor | None
    """Set where they are not: int64 page ids to gather."""
    mask: torch.Tensor | None
    """`[rows, context]`, 0 or -inf; None for one row, or where plain causal masking does."""


def plan_spans(batch: Batch, dtype: torch.dtype) -> list[Span]:
    """What `attend` needs to know of each segment; `dtype` is that of prefill queries."""
    spans, row = [], 0
    for segment in batch.segments:
        spans.append(_span(segment, row, batch.page_size, batch.token_ids.device, dtype))
        row += segment.length
    return spans


def _span(
    segment: Segment, row: int, page_size: int, device: torch.device, dtype: torch.dtype
) -> Span:
    used = np.asarray(segment.pages[: -(-segment.end // page_size)], dtype=np.int64)
    is_run = used[-1] - used[0] == len(used) - 1 and bool((np.diff(used) == 1).all())
    return Span(
        first_row=row,
        rows=segment.length,
        context=segment.end,
        first_slot=int(used[0]) * page_size if is_run else None,
        pages=None if is_run else torch.from_numpy(used).to(device),
        mask=_mask(segment, device, dtype),
    )


def _mask(segment: Segment, device: torch.device, dtype: torch.dtype) -> torch.Tensor | None:
    if segment.length == 1 or segment.start == 0:
        return None
    mask = torch.full((segment.length, segment.end), -torch.inf, dtype=dtype, device=device)
    return mask.triu_(segment.start + 1)


class Attention:
    """Grouped-query attention of a batch's queries over the pool."""

    def __init__(self, heads: int, kv_heads: int, head_size: int) -> None:
        self._kv_heads = kv_heads
        self._group = heads // kv_heads
        self._head_size = head_size

    def attend(
        self, q: torch.Tensor, layer: int, pool: KVPool, spans: list[Span], dtype: torch.dtype
    ) -> torch.Tensor:
        """`[tokens, heads, head size]` to `[tokens, heads * head size]` of `dtype`.

        The batch's own K and V must already be in the pool.
        """
        parts = []
        for span in spans:
            rows = q[span.first_row : span.first_row + span.rows] if len(spans) > 1 else q
            if span.first_slot is not None:
                k, v = pool.heads_view(layer, span.first_slot, span.context)
            else:
                assert span.pages is not None
                k, v = pool.heads_gather(layer, span.pages, span.context)
            parts.append(
                self._decode(rows, k, v) if span.rows == 1 else self._prefill(rows, k, v, span)
            )
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(dtype)

    def _decode(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """One row: the heads that share KV are folded into query rows, so nothing is repeated."""
        folded = q.view(1, self._kv_heads, self._group, self._head_size).to(k.dtype)
        return F.scaled_dot_product_attention(folded, k, v).reshape(1, -1)

    def _prefill(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, span: Span
    ) -> torch.Tensor:
        heads = q.permute(1, 0, 2)[None]
        out = F.scaled_dot_product_attention(
            heads,
            k.to(q.dtype),
            v.to(q.dtype),
            attn_mask=span.mask,
            is_causal=span.mask is None,
            enable_gqa=self._group > 1,
        )
        return out[0].permute(1, 0, 2).reshape(span.rows, -1)

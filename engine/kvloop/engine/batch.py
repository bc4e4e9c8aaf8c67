"""A step's work: tokens of any mix of prefill chunks and decodes, packed without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens [start, start + length) of one sequence; KV of [0, start) is already in its pages."""

    pages: Sequence[int]
    """The sequence's pages from its first token on; they may reach beyond this segment."""
    start: int
    length: int
    wants_logits: bool = True
    """Whether the logits after its last token are needed."""

    @property
    def end(self) -> int:
        """Tokens of the sequence once this segment is computed."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass computes; all tensors are int64 [tokens]."""

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    """Where each token's KV goes: page * page_size + offset."""
    segments: tuple[Segment, ...]
    page_size: int

    @property
    def num_tokens(self) -> int:
        """Rows of the packed batch."""
        return self.token_ids.shape[0]

    def logit_rows(self) -> list[int]:
        """Row of the last token of each segment that wants logits, in order."""
        rows, row = [], 0
        for segment in self.segments:
            row += segment.length
            if segment.wants_logits:
                rows.append(row - 1)
        return rows

    def split(self, parts: int) -> list[Batch]:
        """Cut into at most `parts` batches of about equal length, cutting segments where needed.

        Later parts attend to earlier ones' KV: all parts must write a layer before any attends.
        """
        bounds = [self.num_tokens * i // parts for i in range(parts + 1)]
        return [self._cut(a, b) for a, b in pairwise(bounds) if b > a]

    def _cut(self, first: int, last: int) -> Batch:
        """Rows [first, last) as a batch."""
        segments, row = [], 0
        for segment in self.segments:
            low, high = max(first, row), min(last, row + segment.length)
            if low < high:
                ends = high == row + segment.length
                segments.append(
                    replace(
                        segment,
                        start=segment.start + low - row,
                        length=high - low,
                        wants_logits=segment.wants_logits and ends,
                    )
                )
            row += segment.length
        rows = slice(first, last)
        return Batch(
            self.token_ids[rows],
            self.positions[rows],
            self.slots[rows],
            tuple(segments),
            self.page_size,
        )


def make_batch(
    items: Sequence[tuple[Sequence[int], Segment]], page_size: int, device: torch.device | str
) -> Batch:
    """Pack (token ids of the segment, segment) pairs; a segment's pages must cover its end."""
    assert items, "a batch needs a segment"
    ids, positions, slots = [], [], []
    for tokens, segment in items:
        assert len(tokens) == segment.length > 0, (len(tokens), segment.length)
        assert segment.end <= len(segment.pages) * page_size, "pages do not cover the segment"
        at = np.arange(segment.start, segment.end, dtype=np.int64)
        first = segment.start // page_size
        last = (segment.end - 1) // page_size + 1
        pages = np.asarray(segment.pages[first:last], dtype=np.int64)
        ids.append(np.asarray(tokens, dtype=np.int64))
        positions.append(at)
        slots.append(pages[at // page_size - first] * page_size + at % page_size)

    def packed(parts: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(device)

    return Batch(
        packed(ids), packed(positions), packed(slots), tuple(s for _, s in items), page_size
    )

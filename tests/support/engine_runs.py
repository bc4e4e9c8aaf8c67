"""Driving the engine's model by hand: sequences with pages of their own, prefilled and decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from kvloop.engine.batch import Segment, make_batch
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.transformer import Transformer


@dataclass
class Running:
    """Tokens so far, where their KV is, and how much of it is computed."""

    tokens: list[int]
    pages: list[int]
    num_kv: int = 0
    output: list[int] = field(default_factory=list)


class Runs:
    """A model with a pool."""

    def __init__(self, model: Transformer, num_pages: int = 256, page_size: int = 16) -> None:
        self.model = model
        self.pool = KVPool(model.config, num_pages, page_size, model.dtype, model.device)
        self.page_size = page_size
        self._free = list(range(num_pages))

    def start(self, prompt: Sequence[int], steps: int, scattered: bool = False) -> Running:
        """Reserve pages for a prompt and `steps` tokens; scattered: never two in a row."""
        count = -(-(len(prompt) + steps) // self.page_size)
        stride = 2 if scattered else 1
        pages = self._free[: count * stride : stride]
        self._free = [page for page in self._free if page not in set(pages)]
        return Running(list(prompt), pages)

    def free(self, sequence: Running) -> None:
        """Give the pages back."""
        self._free = sorted(self._free + sequence.pages)

    def step(self, work: Sequence[tuple[Running, int]]) -> torch.Tensor:
        """Compute the next `n` tokens of each sequence; logits of those that are then complete."""
        items = []
        for sequence, n in work:
            end = sequence.num_kv + n
            is_done = end == len(sequence.tokens)
            segment = Segment(sequence.pages, sequence.num_kv, n, is_done)
            items.append((sequence.tokens[sequence.num_kv : end], segment))
            sequence.num_kv = end
        return self.model.forward(make_batch(items, self.page_size, self.model.device), self.pool)

    def append(self, sequences: Sequence[Running], logits: torch.Tensor) -> None:
        """Add each sequence's likeliest token."""
        for sequence, token in zip(sequences, logits.argmax(-1).tolist(), strict=True):
            sequence.tokens.append(token)
            sequence.output.append(token)

    def greedy(
        self, prompt: Sequence[int], steps: int, chunk: int | None = None, scattered: bool = False
    ) -> list[int]:
        """Prefill (in chunks) and decode one prompt alone."""
        sequence = self.start(prompt, steps, scattered)
        self.prefill(sequence, chunk)
        self.decode([sequence], steps - 1)
        self.free(sequence)
        return sequence.output

    def prefill(self, sequence: Running, chunk: int | None = None) -> None:
        """Compute the rest of a prompt and its first answer token."""
        while sequence.num_kv < len(sequence.tokens):
            left = len(sequence.tokens) - sequence.num_kv
            logits = self.step([(sequence, min(left, chunk or left))])
        self.append([sequence], logits)

    def decode(self, sequences: Sequence[Running], steps: int) -> None:
        """`steps` tokens for each of the sequences, batched."""
        for _ in range(steps):
            self.append(sequences, self.step([(sequence, 1) for sequence in sequences]))

"""What is moved, and how."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.page_object import PageShape

Phase = Literal["write", "read", "mixed"]
PHASES: tuple[Phase, ...] = ("write", "read", "mixed")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageLoad:
    """The load that every arm carries in every round."""

    page_bytes: int = 1 << 20
    """Payload of a page; its object adds a trailer and padding."""
    pages_per_batch: int = 32
    threads: int = 1
    """Batches in flight."""
    total_bytes: int = 512 << 20
    """Payload that a phase moves."""
    read_share: float = 0.7
    """Of the mixed phase's batches."""
    rounds: int = 5
    """Each arm runs once a round, in changing order."""
    num_exists: int = 1000
    """Keys of one call of `exists`."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("pages_per_batch", "threads", "rounds", "num_exists"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.page_bytes < 2 or self.page_bytes % 2:
            raise ConfigError(f"page_bytes must be even, K and V alike, got {self.page_bytes}")
        if not 0 <= self.read_share <= 1:
            raise ConfigError(f"read_share must be within 0 .. 1, got {self.read_share}")

    @property
    def shape(self) -> PageShape:
        """A page of that many bytes."""
        return PageShape(
            num_layers=1, page_size=1, num_kv_heads=1, head_size=self.page_bytes // 2, itemsize=1
        )

    @property
    def num_batches(self) -> int:
        """Of a phase: as many as fill `total_bytes`, and one for each thread at least."""
        batch_bytes = self.pages_per_batch * self.page_bytes
        return max(self.threads, round(self.total_bytes / batch_bytes))

    @property
    def num_slots(self) -> int:
        """Of the pool: a batch for each thread."""
        return self.threads * self.pages_per_batch


class Batch(NamedTuple):
    """One call."""

    is_read: bool
    keys: Sequence[bytes]


def phase_batches(load: StorageLoad, arm: str, number: int, phase: Phase) -> list[Batch]:
    """The calls of one phase of one round; `write` comes first and stores what others read."""
    draw = random.Random(f"{load.seed} {number} {phase}")
    stored = list(_written(load, f"{arm} {number} write"))
    if phase == "write":
        return [Batch(False, keys) for keys in stored]
    draw.shuffle(stored)
    if phase == "read":
        return [Batch(True, keys) for keys in stored]
    fresh = _written(load, f"{arm} {number} mixed")
    num_reads = round(load.read_share * load.num_batches)
    kinds = [True] * num_reads + [False] * (load.num_batches - num_reads)
    draw.shuffle(kinds)
    return [Batch(kind, stored[i] if kind else next(fresh)) for i, kind in enumerate(kinds)]


def _written(load: StorageLoad, name: str) -> Iterator[list[bytes]]:
    draw = random.Random(f"{load.seed} {name}")
    for _ in range(load.num_batches):
        yield [draw.randbytes(32) for _ in range(load.pages_per_batch)]

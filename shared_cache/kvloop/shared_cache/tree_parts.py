"""What the radix tree gives and tells: runs it found, pages that left, and who hears of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from kvloop.shared_cache.tree_node import ABSENT, TIERS, Node, Tier


class Leaving(NamedTuple):
    """Pages of one node that have left a tier: their indices in the node, and their values."""

    node: Node
    indices: list[int]
    values: list[int]


Spill = Callable[[list[Leaving]], None]
"""Told of all that has left before any of it is forgotten; may put it into another tier."""


class TierObserver(Protocol):
    """Told at once of pages that enter or leave a tier; the tree waits for it."""

    def entered(self, node: Node, tier: Tier, first: int, num: int) -> None:
        """So many pages of a node, from one on."""

    def left(self, node: Node, tier: Tier, indices: Sequence[int]) -> None:
        """Pages of a node, which still knows their keys."""


class Match(NamedTuple):
    """The leading run of a prompt: pages on the device, then slots of pages on the host."""

    device: list[int]
    host: list[int]


class Step(NamedTuple):
    """A node on a path: its first `num` pages are the path's from page `first` on."""

    node: Node
    first: int
    num: int


def match_of(steps: Sequence[Step]) -> Match:
    """What a path's leading pages have on the device, and what follows them on the host."""
    device = run_of(steps, Tier.DEVICE, 0)
    return Match(device, run_of(steps, Tier.HOST, len(device)))


def run_of(steps: Sequence[Step], tier: Tier, first: int) -> list[int]:
    """Values of a path's pages from `first` on, up to the first that is not in the tier."""
    found: list[int] = []
    for node, start, count in steps:
        part = node.values[tier][max(first - start, 0) : count]
        if len(part) and ABSENT in part:
            return found + list(part[: part.index(ABSENT)])
        found += part
    return found


def queue_flag(tier: Tier, owner: str | None) -> int:
    """Where `Node.queued` says whether it is in the tier's queue (None), or in its owner's."""
    return tier if owner is None else len(TIERS) + tier

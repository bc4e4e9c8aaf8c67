"""How tests of decode's offload take its node from one moment to the next."""

from __future__ import annotations

from collections.abc import Callable

from faulty_store import FaultyStore
from offload_node import OffloadNode

PROMPT = [1, 2, 3, 4, 5]
"""Two full pages, and a token of the page that the answer ends."""
MakeNode = Callable[..., OffloadNode]


def step(node: OffloadNode) -> None:
    """A turn, then what it asked for, then a turn that hears of it."""
    node.turn()
    node.mover.finish()
    while node.looks.step() or node.writes.step():
        pass


def step_copies(node: OffloadNode) -> None:
    """No storage call goes on."""
    for _ in range(3):
        node.turn()
        node.mover.finish()


def keep(store: FaultyStore, node: OffloadNode, keys: list[bytes]) -> None:
    """Prefill has stored these."""
    for key in keys:
        store.put(key, b"prefill's")

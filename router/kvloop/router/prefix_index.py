"""Which node held which page last: a bounded memory of what was routed where."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import Tier

_MAX_NODES = 256


class PrefixIndex:
    """A radix tree for each node's incarnation, the same that the nodes keep their pages in."""

    def __init__(self, max_pages: int) -> None:
        self._max_pages = max_pages
        self._trees: OrderedDict[str, RadixTree] = OrderedDict()

    def record(self, keys: Sequence[bytes], incarnation: str) -> None:
        """The node holds these pages, a run from a prompt's first on, now."""
        tree = self._trees.setdefault(incarnation, RadixTree())
        tree.insert(Tier.DEVICE, keys, [0] * len(keys))
        self._trees.move_to_end(incarnation)
        while len(self._trees) > _MAX_NODES:
            self._trees.popitem(last=False)
        while (over := len(self) - self._max_pages) > 0:
            largest = max(self._trees.values(), key=RadixTree.num_pages)
            largest.evict(Tier.DEVICE, over)

    def leading_pages(self, keys: Sequence[bytes]) -> dict[str, int]:
        """For each node that holds the first page: how many pages it holds without a gap."""
        runs = {node: len(tree.run(Tier.DEVICE, keys)) for node, tree in self._trees.items()}
        return {node: run for node, run in runs.items() if run}

    def clear(self) -> int:
        """Forget all; returns how many pages were known."""
        count = len(self)
        self._trees.clear()
        return count

    def __len__(self) -> int:
        """Pages known, of each node its own."""
        return sum(tree.num_pages() for tree in self._trees.values())

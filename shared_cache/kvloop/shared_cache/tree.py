"""The radix tree of one tier: which page holds which key, who uses it, and what may go first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


class _Node:
    """One page of the tree."""

    __slots__ = (
        "is_alive",
        "is_queued",
        "key",
        "last_used",
        "num_children",
        "page",
        "parent",
        "refs",
    )

    def __init__(self, key: bytes, parent: _Node | None, page: int, last_used: int) -> None:
        self.key = key
        self.parent = parent
        self.page = page
        self.last_used = last_used
        self.refs = 0
        self.num_children = 0
        self.is_alive = True
        self.is_queued = False  # has an entry in the eviction queue

    @property
    def can_go(self) -> bool:
        return self.is_alive and not self.refs and not self.num_children


class RadixTree:
    """A prefix tree with one page on each node, found by its chained key; not thread-safe.

    A key names all pages before it, so a dict from key to node is a whole radix tree, and a page
    is in it only together with all the pages before it. Runs are given by their keys from the
    root on. The tree owns the pages it holds; nothing is evicted that is locked or has pages
    behind it. Each operation costs time in the pages it is given or returns.
    """

    def __init__(self) -> None:
        self._nodes: dict[bytes, _Node] = {}
        self._clock = 0
        self._num_locked = 0
        self._queue: list[tuple[int, int, _Node]] = []  # by last use, then age of the entry
        self._num_entries = 0

    @property
    def num_pages(self) -> int:
        """Pages the tree owns."""
        return len(self._nodes)

    @property
    def num_evictable(self) -> int:
        """Pages that repeated `evict` could free now."""
        return len(self._nodes) - self._num_locked  # locks cover whole runs from the root

    def match(self, keys: Sequence[bytes]) -> list[int]:
        """Return the pages of the longest run of `keys` that the tree holds, and mark them used."""
        self._clock += 1
        pages = []
        for key in keys:
            node = self._nodes.get(key)
            if node is None:
                break
            node.last_used = self._clock
            pages.append(node.page)
        return pages

    def lock(self, keys: Sequence[bytes]) -> None:
        """Keep this run, which the tree must hold, until as many `unlock` calls."""
        for key in keys:
            node = self._nodes[key]
            self._num_locked += not node.refs
            node.refs += 1

    def unlock(self, keys: Sequence[bytes]) -> None:
        """Undo one `lock` of the same run."""
        for key in keys:
            node = self._nodes[key]
            assert node.refs > 0, "unlock without lock"
            node.refs -= 1
            self._num_locked -= not node.refs
            self._enqueue(node)

    def insert(self, keys: Sequence[bytes], pages: Sequence[int]) -> list[int]:
        """Take over the run's pages; return those not taken, which stay the caller's.

        A key that is present keeps its page, and the one offered for it is returned unless it is
        that very page.
        """
        assert len(keys) == len(pages)
        self._clock += 1
        parent: _Node | None = None
        left_over = []
        for key, page in zip(keys, pages, strict=True):
            node = self._nodes.get(key)
            if node is None:
                node = self._add(key, parent, page)
            elif node.page != page:
                left_over.append(page)
            assert node.parent is parent, "keys are not a run from the root"
            node.last_used = self._clock
            parent = node
        if parent is not None:
            self._enqueue(parent)
        return left_over

    def evict(self, n: int) -> list[int]:
        """Drop up to `n` pages, least recently used first and leaves before their parents.

        Returns them; they are the caller's then.
        """
        pages: list[int] = []
        while len(pages) < n and self._queue:
            stamp, _, node = heapq.heappop(self._queue)
            node.is_queued = False
            if node.can_go and stamp == node.last_used:
                pages.append(self._remove(node))
            else:
                self._enqueue(node)
        return pages

    def clear_unlocked(self) -> list[int]:
        """Drop every page that nobody locks, and return them."""
        return self.evict(len(self._nodes))

    def _add(self, key: bytes, parent: _Node | None, page: int) -> _Node:
        node = _Node(key, parent, page, self._clock)
        self._nodes[key] = node
        if parent is not None:
            parent.num_children += 1
        return node

    def _remove(self, node: _Node) -> int:
        del self._nodes[node.key]
        node.is_alive = False
        if node.parent is not None:
            node.parent.num_children -= 1
            self._enqueue(node.parent)
        return node.page

    def _enqueue(self, node: _Node) -> None:
        """Queue a node that may go; a later use is noticed when its entry comes up."""
        if node.can_go and not node.is_queued:
            self._num_entries += 1
            heapq.heappush(self._queue, (node.last_used, self._num_entries, node))
            node.is_queued = True

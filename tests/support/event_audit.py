"""What a subscriber makes of a tree's events, against what the tree has."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.engine.event_recorder import Cleared, EventRecorder, Record, Stored
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.kv_events import MEDIA
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import ABSENT, Tier

Pages = dict[bytes, bytes | None]
"""The parent of each page of a tier."""


class EventAudit:
    """Applies a recorder's records as a subscriber does."""

    def __init__(self, recorder: EventRecorder, page_size: int) -> None:
        self._recorder, self._page_size = recorder, page_size
        self.held: dict[Tier, Pages] = {tier: {} for tier in MEDIA}

    def check(self, tree: RadixTree) -> None:
        """Raise AssertionError where what was told is not what the tree has."""
        self.hear(self._recorder.take())
        assert self.held == {tier: _content(tree, tier) for tier in MEDIA}

    def hear(self, records: Sequence[Record]) -> None:
        """In their order; a page comes where it is not, and goes from where it is."""
        for record in records:
            if isinstance(record, Cleared):
                for pages in self.held.values():
                    pages.clear()
            elif isinstance(record, Stored):
                self._stored(record)
            else:
                for key in record.keys:
                    del self.held[record.tier][key]

    def _stored(self, record: Stored) -> None:
        if record.tokens is not None:
            keys = page_keys(record.tokens, self._page_size, record.seed, record.parent)
            assert record.keys == keys, "a page was told with the tokens of another"
        parent, pages = record.parent, self.held[record.tier]
        for key in record.keys:
            assert key not in pages, "a page that is there was told of again"
            pages[key] = parent
            parent = key


def _content(tree: RadixTree, tier: Tier) -> Pages:
    pages: Pages = {}
    for node in tree.nodes(tier):
        run = tree.keys_to(node)
        start = len(run) - len(node)
        for index, value in enumerate(node.values[tier], start):
            if value != ABSENT:
                pages[run[index]] = run[index - 1] if index else None
    return pages

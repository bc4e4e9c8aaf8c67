"""What happens to the pages of a node's tiers, as records that a loop's turn hands on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from kvloop.shared_cache.kv_events import MEDIA
from kvloop.shared_cache.tree_node import Node, Tier


@dataclass(slots=True, kw_only=True)
class Stored:
    """Pages, each following the one before it, have entered a tier."""

    tier: Tier
    keys: list[bytes]
    parent: bytes | None
    """The key before the first page's; None: it begins a sequence."""
    tokens: list[int] | None = None
    """Of all pages; None where they are not wanted, or nobody knows them any more."""
    seed: bytes | None = None
    """What the chain of keys begins with, where the tokens are known."""


@dataclass(slots=True, kw_only=True)
class Removed:
    """Pages have left a tier."""

    tier: Tier
    keys: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class Cleared:
    """No page is in any tier, or none is known to be."""


Record = Stored | Removed | Cleared
Tokens = Callable[[], Sequence[int]]


class _Run(NamedTuple):
    keys: Sequence[bytes]
    tokens: Tokens
    seed: bytes | None


class _Place(NamedTuple):
    """Behind which page of a sequence the newest record ends."""

    run: _Run
    end: int
    key: bytes


class EventRecorder:
    """The tree's observer; used by the loop thread only. Costs microseconds a page."""

    def __init__(self, page_size: int, *, wants_tokens: bool) -> None:
        self._page_size, self._wants_tokens = page_size, wants_tokens
        self._records: list[Record] = []
        self._runs: dict[str, _Run] = {}
        self._newest: _Place | None = None
        self._num_held = 0
        """Pages in L1, and pages in L2."""

    def learn(
        self, run: str, keys: Sequence[bytes], tokens: Tokens, seed: bytes | None = None
    ) -> None:
        """The tokens of a sequence whose pages may enter a tier until `forget`.

        `keys` is read then, and may have grown.
        """
        if self._wants_tokens and keys:
            self._runs[run] = _Run(keys, tokens, seed)

    def forget(self, run: str) -> None:
        """The sequence has ended."""
        self._runs.pop(run, None)
        self._newest = None

    def entered(self, node: Node, tier: Tier, first: int, num: int) -> None:
        """The tree's: pages of a node are in a tier."""
        if tier not in MEDIA:
            return
        self._num_held += num
        keys = [node.key(index) for index in range(first, first + num)]
        parent = _key_before(node, first)
        stored = Stored(tier=tier, keys=keys, parent=parent)
        if self._wants_tokens:
            self._tell_tokens(stored, node, first)
        self._add(stored)

    def left(self, node: Node, tier: Tier, indices: Sequence[int]) -> None:
        """The tree's: pages of a node are in a tier no more."""
        if tier not in MEDIA:
            return
        self._num_held -= len(indices)
        last = self._records[-1] if self._records else None
        if not isinstance(last, Removed) or last.tier is not tier:
            last = Removed(tier=tier)
            self._records.append(last)
        last.keys += [node.key(index) for index in indices]

    def take(self) -> list[Record]:
        """What has happened since the last call, in order."""
        records, self._records = self._records, []
        if records and not self._num_held:
            return [Cleared()]  # says it all
        return records

    def _add(self, stored: Stored) -> None:
        last = self._records[-1] if self._records else None
        if not isinstance(last, Stored) or not _continues(last, stored):
            self._records.append(stored)
            return
        last.keys += stored.keys
        if last.tokens is not None and stored.tokens is not None:
            last.tokens += stored.tokens

    def _tell_tokens(self, stored: Stored, node: Node, first: int) -> None:
        """Where a sequence is known that these pages are of: a key names all before it."""
        newest, num, last = self._newest, len(stored.keys), stored.keys[-1]
        if newest is not None and newest.key == stored.parent:  # pages come one by one, too
            first, likely = newest.end, [newest.run]
        else:
            first, likely = _depth(node) + first, []
        candidates, end = chain(likely, self._runs.values()), first + num
        run = next((r for r in candidates if end <= len(r.keys) and r.keys[end - 1] == last), None)
        if run is not None:
            self._newest, stored.seed = _Place(run, end, last), run.seed
            stored.tokens = list(run.tokens()[first * self._page_size : end * self._page_size])


def _continues(last: Stored, stored: Stored) -> bool:
    is_alike = last.tier is stored.tier and (last.tokens is None) == (stored.tokens is None)
    return is_alike and stored.parent == last.keys[-1]


def _depth(node: Node) -> int:
    """Pages above a node."""
    depth, above = 0, node.parent
    while above is not None:
        depth, above = depth + len(above), above.parent
    return depth


def _key_before(node: Node, index: int) -> bytes | None:
    if index:
        return node.key(index - 1)
    above = node.parent
    return above.key(len(above) - 1) if above is not None and len(above) else None

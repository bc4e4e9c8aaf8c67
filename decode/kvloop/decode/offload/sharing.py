"""Who goes first, and who goes at all where there is too little room; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvloop.decode.offload.chain import Chain, Page

_SHARE = 8
"""Pages of one chain before the next has its turn."""


def in_turns(queues: Iterable[Sequence[Page]], room: int) -> list[Page]:
    """The first pages of all queues, `room` at most, none of them far ahead of another."""
    left = [queue for queue in queues if queue]
    chosen: list[Page] = []
    start = 0
    while left and len(chosen) < room:
        for queue in left:
            chosen += queue[start : start + _SHARE][: room - len(chosen)]
        start += _SHARE
        left = [queue for queue in left if len(queue) > start]
    return chosen


def newest(chains: Iterable[Chain]) -> list[Page]:
    """Of each chain the first page of its answer that found no slot: it is given up."""
    firsts = (next((page for page in chain.waiting if page.is_fresh), None) for chain in chains)
    return [page for page in firsts if page is not None]


def num_fresh(chains: Iterable[Chain]) -> int:
    """Pages of answers that found no slot."""
    return sum(page.is_fresh for chain in chains for page in chain.waiting)


def oldest(chains: Iterable[Chain]) -> Page | None:
    """The staged page that has waited longest; pages in a copy or a storage call do not count."""
    staged = (chain.staged[0] for chain in chains if chain.staged)
    return min(staged, key=lambda page: page.due_at, default=None)

"""Who leaves a tier first: each policy ranks a tree node, and the lowest rank goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvloop.shared_cache.hicache_names import EvictionPolicy

Rank = tuple[int, ...]
_PROTECTED_USES = 2


class Used(Protocol):
    """What is remembered of a node's use; none of the three ever falls, so neither does a rank."""

    last_used: int
    """The tree's clock at the last request that used it."""
    hits: int
    """Requests that used it, the one that made it included."""
    priority: int
    """The highest of those requests."""


def rank_of(policy: EvictionPolicy) -> Callable[[Used], Rank]:
    """The policy's rank; ties beyond the last use cannot be: a request uses one path."""
    return _RANKS[policy]


def _lru(node: Used) -> Rank:
    return (node.last_used,)


def _lfu(node: Used) -> Rank:
    return (node.hits, node.last_used)


def _slru(node: Used) -> Rank:
    """Pages used once go before all that were used again, however long ago."""
    return (node.hits >= _PROTECTED_USES, node.last_used)


def _priority(node: Used) -> Rank:
    return (node.priority, node.last_used)


_RANKS: dict[EvictionPolicy, Callable[[Used], Rank]] = {
    "lru": _lru,
    "lfu": _lfu,
    "slru": _slru,
    "priority": _priority,
}

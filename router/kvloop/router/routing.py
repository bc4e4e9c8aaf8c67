"""Which nodes get a request: pure functions of what is known about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kvloop.shared_cache.affinity import REQUEST_COST_TOKENS, affinity
from kvloop.shared_cache.wire import NodeRecord, PrefillCandidate

SAME_ZONE_TOKENS = 128
"""A node in the same zone is preferred as if it held this many tokens more."""
FRESH_TOKENS = 2 * REQUEST_COST_TOKENS
"""So much more the decode node is preferred whose answer to this session has just ended: it knows
which of its pages are not in L3 yet, and waits for them."""
MAX_PREFILLS = 4
"""Candidates named to decode."""

Load = Callable[[NodeRecord], int]


def rank_decodes(
    decodes: Sequence[NodeRecord],
    *,
    load: Load,
    held_pages: Callable[[NodeRecord], int],
    zone: str,
    turn: int,
    fresh: Callable[[NodeRecord], bool] = lambda _: False,
    prefills: Sequence[NodeRecord] = (),
) -> list[NodeRecord]:
    """Decode nodes, best first: session affinity and zone against load, equals in turn.

    `fresh`: whether a node's answer to this session has just ended. Those that none of
    `prefills` can be paired with, as while a new revision starts, come last.
    """
    rotated = _rotate(decodes, turn)
    return sorted(
        rotated,
        key=lambda n: (
            not any(can_pair(p, n) for p in prefills),
            -_score(n, held_pages(n), load(n), zone) - FRESH_TOKENS * fresh(n),
        ),
    )


def rank_prefills(
    prefills: Sequence[NodeRecord],
    decode: NodeRecord,
    *,
    load: Load,
    held_pages: Mapping[str, int],
    turn: int,
) -> tuple[PrefillCandidate, ...]:
    """Prefill nodes that may be paired with `decode`, best first: cached prefix against load."""
    rotated = _rotate([p for p in prefills if can_pair(p, decode)], turn)
    ranked = sorted(
        rotated, key=lambda n: -_score(n, held_pages.get(n.incarnation, 0), load(n), decode.zone)
    )
    return tuple(
        PrefillCandidate(url=node.url, incarnation=node.incarnation)
        for node in ranked[:MAX_PREFILLS]
    )


def can_pair(prefill: NodeRecord, decode: NodeRecord) -> bool:
    """Whether their pages mean the same: equal namespace and generation."""
    return (prefill.namespace, prefill.generation) == (decode.namespace, decode.generation)


def _score(node: NodeRecord, held_pages: int, load: int, zone: str) -> int:
    held = held_pages * node.page_size
    near = SAME_ZONE_TOKENS if zone and node.zone == zone else 0
    return affinity(held + near, load)


def _rotate(nodes: Sequence[NodeRecord], turn: int) -> list[NodeRecord]:
    start = turn % len(nodes) if nodes else 0
    return [*nodes[start:], *nodes[:start]]

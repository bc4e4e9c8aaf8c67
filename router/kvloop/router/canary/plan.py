"""Which nodes a canary goes through: every one at least once, each decode with a prefill."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from kvloop.router.routing import can_pair
from kvloop.shared_cache.wire import NodeRecord

MAX_PAIRS = 16
"""Of one canary; the next one goes on with other nodes."""
_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Turn 1 goes through `prefill`, turn 2 through `reader`, both are answered by `decode`."""

    decode: NodeRecord
    prefill: NodeRecord
    reader: NodeRecord
    """Another prefill node where there is one: what one stored, another finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What can be checked, and what keeps nodes from being checked."""

    pairs: tuple[Pair, ...]
    problems: tuple[str, ...] = ()
    """Why a decode node gets no KV from any prefill node; any of them breaks the loop."""
    notes: tuple[str, ...] = ()


def plan_pairs(prefills: Sequence[NodeRecord], decodes: Sequence[NodeRecord], turn: int) -> Plan:
    """Pair the ready nodes; `turn` counts canaries, and moves the choice where it is limited."""
    pairs: list[Pair] = []
    groups: defaultdict[tuple[str, str], list[NodeRecord]] = defaultdict(list)
    for decode in decodes:
        groups[decode.namespace, decode.generation].append(decode)
    for mates in groups.values():
        partners = [prefill for prefill in prefills if can_pair(prefill, mates[0])]
        pairs += _pair_up(mates, partners, turn) if partners else []
    idle = [p for p in prefills if not any(can_pair(p, d) for d in decodes)]
    alone = [d for d in decodes if not any(can_pair(p, d) for p in prefills)]
    notes = [f"prefill {p.url} has no decode node to be paired with" for p in idle if decodes]
    if len(pairs) > MAX_PAIRS:
        notes.append(f"{MAX_PAIRS} of {len(pairs)} pairs of nodes are checked this time")
    return Plan(
        pairs=tuple(_some(pairs, turn)),
        problems=tuple(_why_alone(decode, prefills) for decode in alone),
        notes=tuple(notes),
    )


def why_unpaired(prefill: NodeRecord, decode: NodeRecord) -> str:
    """In which way two nodes differ that must not share pages."""
    if prefill.page_size != decode.page_size:
        return f"page sizes differ: prefill {prefill.page_size}, decode {decode.page_size}"
    if prefill.namespace != decode.namespace:
        theirs, ours = prefill.namespace[:_DIGITS], decode.namespace[:_DIGITS]
        return (
            f"namespaces differ: prefill {theirs}, decode {ours} "
            "(model, weights, KV dtype, codec or release tag are not the same)"
        )
    return f"generations differ: prefill {prefill.generation!r}, decode {decode.generation!r}"


def _pair_up(
    decodes: Sequence[NodeRecord], prefills: Sequence[NodeRecord], turn: int
) -> list[Pair]:
    count = max(len(decodes), len(prefills))
    return [
        Pair(
            decode=decodes[i % len(decodes)],
            prefill=prefills[(i + turn) % len(prefills)],
            reader=prefills[(i + turn + 1) % len(prefills)],
        )
        for i in range(count)
    ]


def _some(pairs: Sequence[Pair], turn: int) -> list[Pair]:
    if len(pairs) <= MAX_PAIRS:
        return list(pairs)
    return [pairs[(turn * MAX_PAIRS + i) % len(pairs)] for i in range(MAX_PAIRS)]


def _why_alone(decode: NodeRecord, prefills: Sequence[NodeRecord]) -> str:
    reasons = [f"{p.url}: {why_unpaired(p, decode)}" for p in prefills]
    shown = "; ".join(reasons[:4])
    return f"no prefill node can be paired with decode {decode.url}: {shown or 'none is ready'}"

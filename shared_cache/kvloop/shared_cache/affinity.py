"""How well a request fits a node: what is cached there against what is to do there. Pure."""

from __future__ import annotations

REQUEST_COST_TOKENS = 512
"""A request already on a node weighs as much as this many tokens that are not cached there."""


def affinity(num_held_tokens: int, load: int) -> int:
    """In tokens, more is better; `load`: requests on the node."""
    return num_held_tokens - REQUEST_COST_TOKENS * load

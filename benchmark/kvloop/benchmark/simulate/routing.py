"""Which simulated nodes get a prompt: the router's rule, by what the nodes really hold."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.shared_cache.affinity import affinity


def pick(num_held_tokens: Sequence[int], loads: Sequence[int], turn: int) -> int:
    """The node with the best score; equals in turn."""
    num = len(loads)
    order = [(turn + index) % num for index in range(num)]
    return max(order, key=lambda node: affinity(num_held_tokens[node], loads[node]))

"""How much of a written load could be reused at most, counted without any cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kvloop.benchmark.workloads.plan import Ceiling
from kvloop.benchmark.workloads.script import Part, Script

_WORDS = (
    "what stood at the start of an earlier prompt or of its answer, less an answer's last token "
    "(it has no KV yet); nothing evicted"
)
_ROOT = 0


@dataclass(slots=True)
class _Place:
    """Where a conversation stands after an answer."""

    node: int
    length: int
    """Tokens up to here."""


@dataclass(slots=True)
class _Prefixes:
    """Every prompt so far as a tree of parts."""

    children: dict[tuple[int, str], int] = field(default_factory=dict)
    continued: set[int] = field(default_factory=set)
    """Answers that stood whole in a later prompt, and so have their last token's KV too."""
    num_nodes: int = 1

    def add_history(self, place: _Place) -> int:
        """A prompt begins with all up to an answer; returns how much of that is reusable."""
        if place.node == _ROOT or place.node in self.continued:
            return place.length
        self.continued.add(place.node)
        return place.length - 1

    def add(self, place: _Place, part: Part) -> bool:
        """Move past a part; whether it stood there before."""
        place.length += part.length
        edge = (place.node, part.key)
        is_known = edge in self.children
        place.node = self.children[edge] if is_known else self.add_node()
        self.children[edge] = place.node
        return is_known

    def add_node(self) -> int:
        """A place that nothing leads to yet."""
        self.num_nodes += 1
        return self.num_nodes - 1


def count_ceiling(scripts: Sequence[Script]) -> Ceiling:
    """Of scripts in the order in which they are numbered: parents before their branches."""
    prefixes, tokens, reusable = _Prefixes(), 0, 0
    answered: list[list[_Place]] = []
    """By conversation, where each of its turns ended, its parent's first ones included."""
    for script in scripts:
        branch = script.branch
        places = list(answered[branch.parent][: branch.turns]) if branch else []
        answered.append(places)
        for line in script.lines:
            start = places[-1] if places else _Place(node=_ROOT, length=0)
            reusable += prefixes.add_history(start)
            place = _Place(node=start.node, length=start.length)
            for part in line.parts:
                # past the first part that is new, none can be known
                reusable += part.length if prefixes.add(place, part) else 0
            tokens += place.length
            answer = place.length + line.turn.output_length
            places.append(_Place(node=prefixes.add_node(), length=answer))
    return Ceiling(tokens=tokens, reusable_tokens=reusable, words=_WORDS)

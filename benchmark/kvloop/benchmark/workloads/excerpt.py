"""Which requests of a trace are sent: the first, or whole conversations that reuse enough."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kvloop.benchmark.replay.trace import Request
from kvloop.benchmark.workloads.words import new_random
from kvloop.shared_cache.errors import ConfigError

Group = tuple[int, ...]
"""Requests of one conversation, as numbers in time order."""

_COMMON_SHARE = 0.5
"""An id that more requests than this have is a system prompt's, and makes no conversation."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """Of some requests' ids, how many were seen before among them."""

    seen: int
    ids: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.seen / self.ids if self.ids else 0.0


def count_reuse(requests: Iterable[Request], known: Iterable[int] = ()) -> Reuse:
    """Of requests in time order; `known` ids count as seen from the start."""
    seen, num_ids, num_seen = set(known), 0, 0
    for request in requests:
        num_ids += len(request.pages)
        num_seen += sum(page in seen for page in request.pages)
        seen.update(request.pages)
    return Reuse(num_seen, num_ids)


def common_ids(requests: Sequence[Request]) -> frozenset[int]:
    """Ids that most requests have, such as a system prompt's."""
    counts = Counter(page for request in requests for page in request.pages)
    return frozenset(i for i, num in counts.items() if num > _COMMON_SHARE * len(requests))


def group_requests(requests: Sequence[Request], common: frozenset[int]) -> tuple[Group, ...]:
    """Requests with the same first id beyond the common ones are a conversation.

    In the order of their first requests; one that has common ids only stands alone.
    """
    groups: dict[int | tuple[int], list[int]] = {}
    for number, request in enumerate(requests):
        own = next((page for page in request.pages if page not in common), None)
        groups.setdefault((number,) if own is None else own, []).append(number)
    return tuple(tuple(group) for group in groups.values())


def without_longer(
    requests: Sequence[Request], groups: Iterable[Group], longest: int
) -> tuple[Group, ...]:
    """Conversations of which no prompt has more than `longest` tokens."""
    return tuple(group for group in groups if all(requests[i].num_tokens <= longest for i in group))


def first_requests(groups: Iterable[Group], limit: int) -> tuple[Group, ...]:
    """The first `limit` requests of all, their conversations cut where that ends."""
    chosen = set(sorted(i for group in groups for i in group)[:limit])
    cut = (tuple(i for i in group if i in chosen) for group in groups)
    return tuple(group for group in cut if group)


@dataclass(slots=True)
class _Pick:
    """Conversations taken so far; `seen` of their `ids` were seen before."""

    reuse_of: Callable[[Group], Reuse]
    limit: int
    min_reuse: float
    seen: int
    ids: int = 0
    num: int = 0
    groups: list[Group] = field(default_factory=list)

    def take(self, group: Group) -> bool:
        """Take a conversation that fits and keeps the share, or brings it nearer."""
        if self.num + len(group) > self.limit:
            return False
        reuse = self.reuse_of(group)
        seen, ids = self.seen + reuse.seen, self.ids + reuse.ids
        if seen < self.min_reuse * ids and reuse.seen < self.min_reuse * reuse.ids:
            return False
        self.seen, self.ids, self.num = seen, ids, self.num + len(group)
        self.groups.append(group)
        return True


def pick_conversations(
    requests: Sequence[Request],
    groups: Sequence[Group],
    common: frozenset[int],
    *,
    limit: int,
    min_reuse: float,
    seed: int,
) -> tuple[Group, ...]:
    """`limit` requests by whole conversations, of whose ids at least `min_reuse` come again.

    Conversations are drawn under the seed; one that would bring the share below `min_reuse` waits
    until others have raised it. Only the last may be cut, to end at `limit`. Raises ConfigError
    where no choice was found.
    """

    def reuse_of(group: Group) -> Reuse:
        return count_reuse((requests[i] for i in group), common)

    def reuse_of_all(chosen: Iterable[Group]) -> Reuse:
        return count_reuse(requests[i] for i in sorted(i for group in chosen for i in group))

    drawn = list(groups)
    new_random(seed, "excerpt").shuffle(drawn)
    best_first = sorted(drawn, key=lambda group: -_surplus(reuse_of(group), min_reuse))
    for order in (drawn, best_first):
        # all conversations begin with the common ids, and only the first finds them new
        pick = _Pick(reuse_of, limit, min_reuse, seen=-len(common))
        _fill(pick, order)
        if pick.num == limit and reuse_of_all(pick.groups).share >= min_reuse:
            return tuple(sorted(pick.groups))
    raise ConfigError(
        f"--min-reuse {min_reuse:g}: no {limit} requests of this trace were found that reuse so "
        f"much; all {sum(map(len, groups))} reuse {reuse_of_all(groups).share:.3f}; give a lower "
        "--min-reuse or another --limit"
    )


def _fill(pick: _Pick, order: Sequence[Group]) -> None:
    waiting: deque[Group] = deque()
    for group in order:
        if not pick.take(group):
            waiting.append(group)
            continue
        while waiting and pick.take(waiting[0]):
            waiting.popleft()
    left = [group for group in waiting if not pick.take(group)]
    for group in left:
        if pick.num < pick.limit:
            pick.take(group[: pick.limit - pick.num])


def _surplus(reuse: Reuse, min_reuse: float) -> float:
    """Ids seen before beyond the share that is wanted."""
    return reuse.seen - min_reuse * reuse.ids

"""The radix tree over L1, L2 and L3: where each page lies, who uses it, and what may go first."""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Sequence

from kvloop.shared_cache.eviction import Rank, rank_of
from kvloop.shared_cache.hicache_names import EvictionPolicy
from kvloop.shared_cache.keys import KEY_BYTES
from kvloop.shared_cache.tree_node import ABSENT, TIERS, Node, Tier
from kvloop.shared_cache.tree_parts import (
    Leaving,
    Match,
    Spill,
    Step,
    TierObserver,
    match_of,
    queue_flag,
    run_of,
)

_Queue = list[tuple[Rank, int, Node]]


class RadixTree:
    """A prefix tree of page keys, runs of pages on its nodes; not thread-safe.

    Runs are given by their keys from the root on. A page may be in any of the tiers; the tree owns
    its device page and host slot, and keeps an entry while it is in one of them or known to be
    stored. A page leaves a tier only when no page behind it is in that tier and, on the device,
    when nobody locks it. Each operation costs time in the pages it is given or returns.
    """

    def __init__(
        self,
        device_policy: EvictionPolicy = "lru",
        host_policy: EvictionPolicy | None = None,
        observer: TierObserver | None = None,
    ) -> None:
        policies: list[EvictionPolicy] = [device_policy, host_policy or device_policy, "lru"]
        self._ranks = [rank_of(policy) for policy in policies]
        self._observer = observer
        self._root = Node(None, b"")
        self._clock = 0
        self._num_entries = 0
        self._num_locked = 0
        self._spilling: set[Node] = set()
        """Whose pages have left a tier and may yet enter another."""
        self._num_pages: Counter[tuple[Tier, str | None]] = Counter()
        self._queues: dict[tuple[Tier, str | None], _Queue] = {(tier, None): [] for tier in TIERS}

    # --- looking ------------------------------------------------------------------------------

    def num_pages(self, tier: Tier = Tier.DEVICE, owner: str | None = None) -> int:
        """Pages in a tier, of one owner or of all."""
        return self._num_pages[tier, owner]

    @property
    def num_evictable(self) -> int:
        """Device pages that repeated `evict` could free now: locks cover whole runs."""
        return self.num_pages(Tier.DEVICE) - self._num_locked

    def run(self, tier: Tier, keys: Sequence[bytes], first: int = 0) -> list[int]:
        """Values of the pages from `first` on, up to the first that is not in the tier."""
        return run_of(self._path(b"".join(keys)), tier, first)

    def find(self, keys: Sequence[bytes]) -> Match:
        """As `match`, without a trace."""
        return match_of(self._path(b"".join(keys)))

    def values(self, tier: Tier, keys: Sequence[bytes]) -> list[int]:
        """One value for each key, ABSENT where the page is not in the tier."""
        values: list[int] = []
        for node, _, count in self._path(b"".join(keys)):
            values += node.values[tier][:count]
        return values + [ABSENT] * (len(keys) - len(values))

    def uses(self, keys: Sequence[bytes]) -> list[int]:
        """How many requests used each page, as far as the tree knows the run."""
        uses: list[int] = []
        for node, _, count in self._path(b"".join(keys)):
            uses += [node.hits] * count
        return uses

    def nodes(self, tier: Tier) -> list[Node]:
        """Those with pages in the tier, parents first."""
        return [node for node in self._nodes() if node.num[tier]]

    def keys_to(self, node: Node) -> list[bytes]:
        """The run from the root to a node's last page."""
        parts = []
        above: Node | None = node
        while above is not None:
            parts.append(bytes(above.keys))
            above = above.parent
        blob = b"".join(reversed(parts))
        return [blob[i : i + KEY_BYTES] for i in range(0, len(blob), KEY_BYTES)]

    # --- using --------------------------------------------------------------------------------

    def match(self, keys: Sequence[bytes], priority: int = 0) -> Match:
        """Find a prompt's leading run, and note one use of all its pages that the tree knows."""
        self._clock += 1
        steps = self._split_path(keys)
        for node, _, _ in steps:
            node.hits += 1
            self._touch(node, priority)
        return match_of(steps)

    def expect(self, keys: Sequence[bytes]) -> None:
        """A request will use this run soon: its pages are the last used now; no use is noted."""
        self._clock += 1
        for node, _, _ in self._split_path(keys):
            node.last_used = self._clock

    def lock(self, keys: Sequence[bytes]) -> None:
        """Keep this run's device pages, which the tree must hold, until as many `unlock` calls."""
        steps = self._split_path(keys)
        assert sum(step.num for step in steps) == len(keys), "locked a run that is not there"
        for node, _, _ in steps:
            if not node.refs:
                self._num_locked += node.num[Tier.DEVICE]
            node.refs += 1

    def unlock(self, keys: Sequence[bytes]) -> None:
        """Undo one `lock` of the same run."""
        for node, _, count in self._path(b"".join(keys)):
            assert node.refs > 0 and count == len(node), "unlock without lock"
            node.refs -= 1
            if not node.refs:
                self._num_locked -= node.num[Tier.DEVICE]
                self._enqueue(node, Tier.DEVICE)

    def insert(
        self,
        tier: Tier,
        keys: Sequence[bytes],
        values: Sequence[int],
        *,
        owner: str = "",
        priority: int = 0,
    ) -> list[int]:
        """Put the last `len(values)` pages of a run into a tier; return the values not taken.

        A page that is there keeps its value, and the one offered for it is returned unless it is
        that very value: it stays the caller's. A page that is new counts one use.
        """
        assert len(values) <= len(keys)
        if not values:
            return []
        self._clock += 1
        first = len(keys) - len(values)
        left_over = []
        for node, start, count in self._grown_path(keys, owner):
            self._touch(node, priority)
            skip = max(first - start, 0)
            offered = values[start + skip - first : max(start + count - first, 0)]
            left_over += self._fill(node, tier, skip, offered)
        return left_over

    def assign(
        self, tier: Tier, keys: Sequence[bytes], indices: Sequence[int], values: Sequence[int]
    ) -> list[int]:
        """Set (or, with ABSENT, take away) values of some pages of a run, ascending `indices`.

        Returns the values not taken, of pages that the tree does not know any more.
        """
        at, num = 0, len(indices)
        for node, first, known in self._path(b"".join(keys)):
            while at < num and indices[at] < first + known:
                self._change(node, tier, indices[at] - first, values[at])
                at += 1
            self._prune(node)
        return list(values[at:])

    def put(self, node: Node, tier: Tier, index: int, value: int) -> None:
        """Set one page's value in a tier where it is absent; for `Spill`."""
        assert node.values[tier][index] == ABSENT
        self._change(node, tier, index, value)

    # --- leaving ------------------------------------------------------------------------------

    def evict(
        self,
        tier: Tier,
        n: int,
        owner: str | None = None,
        spill: Spill | None = None,
        spare: Sequence[bytes] = (),
        is_busy: Callable[[int], bool] | None = None,
    ) -> list[int]:
        """Take up to `n` pages out of a tier, lowest rank first and leaves before their parents.

        Returns their values: they are the caller's then. With `owner` only his pages go; those of
        the run `spare` stay, and those before a page whose value `is_busy`.
        """
        queue = self._queue(tier, owner)
        spared = {step.node for step in self._path(b"".join(spare))}
        passed_over: list[Node] = []
        left: list[Leaving] = []
        missing = n
        while missing > 0 and queue:
            rank, _, node = heapq.heappop(queue)
            node.queued[queue_flag(tier, owner)] = False
            if not self._can_go(node, tier):
                continue
            if node in spared or (is_busy is not None and is_busy(node.last_value(tier))):
                passed_over.append(node)
                continue
            if rank == self._ranks[tier](node):
                left.append(self._leave(node, tier, missing))
                missing -= len(left[-1].values)
            self._enqueue(node, tier)
        for node in passed_over:
            self._enqueue(node, tier)
        if spill is not None and left:
            self._spilling = {leaving.node for leaving in left}
            spill(left)
            self._spilling = set()
        for node, _, _ in left:
            self._prune(node)
        return [value for leaving in left for value in leaving.values]

    def forget_stored(self) -> None:
        """Nothing is known to be in L3 any more."""
        for node in reversed(self._nodes()):
            node.clear(Tier.STORAGE)
            self._prune(node)
        for count in [count for count in self._num_pages if count[0] is Tier.STORAGE]:
            del self._num_pages[count]

    # --- paths --------------------------------------------------------------------------------

    def _path(self, blob: bytes) -> list[Step]:
        """The nodes that hold a run's pages, as far as the tree knows it."""
        steps, node, at, num = list[Step](), self._root, 0, len(blob) // KEY_BYTES
        while at < num:
            child = node.children.get(blob[at * KEY_BYTES : (at + 1) * KEY_BYTES])
            if child is None:
                break
            same = child.shared(blob, at)
            steps.append(Step(child, at, same))
            at += same
            if same < len(child):
                break
            node = child
        return steps

    def _split_path(self, keys: Sequence[bytes]) -> list[Step]:
        """The same, the last node split where the run ends or leaves it."""
        steps = self._path(b"".join(keys))
        if steps and steps[-1].num < len(steps[-1].node):
            node, first, count = steps[-1]
            steps[-1] = Step(self._split(node, count), first, count)
        return steps

    def _grown_path(self, keys: Sequence[bytes], owner: str) -> list[Step]:
        """The same, a new node added for the pages that the tree does not know."""
        steps = self._split_path(keys)
        known = sum(step.num for step in steps)
        if known < len(keys):
            parent = steps[-1].node if steps else self._root
            node = Node(parent, b"".join(keys[known:]), owner)
            node.hits = 1
            parent.children[keys[known]] = node
            steps.append(Step(node, known, len(keys) - known))
        return steps

    def _split(self, node: Node, at: int) -> Node:
        upper = node.split(at)
        for tier in TIERS:
            self._enqueue(upper, tier)
        return upper

    def _nodes(self) -> list[Node]:
        """All nodes, parents first."""
        nodes = list(self._root.children.values())
        for node in nodes:
            nodes += node.children.values()
        return nodes

    # --- nodes --------------------------------------------------------------------------------

    def _touch(self, node: Node, priority: int) -> None:
        node.last_used = self._clock
        node.priority = max(node.priority, priority)

    def _fill(self, node: Node, tier: Tier, first: int, offered: Sequence[int]) -> list[int]:
        values = node.values[tier]
        if not node.num[tier] and len(offered):  # at once: by far the most common case
            values[first : first + len(offered)] = array(values.typecode, offered)
            node.num[tier], node.ends[tier] = len(offered), first + len(offered)
            self._count(node, tier, len(offered))
            self._appeared(node, tier)
            if self._observer is not None:
                self._observer.entered(node, tier, first, len(offered))
            return []
        left_over = []
        for index, value in enumerate(offered, first):
            if values[index] == ABSENT:
                self._change(node, tier, index, value)
            elif values[index] != value:
                left_over.append(value)
        return left_over

    def _change(self, node: Node, tier: Tier, index: int, value: int) -> None:
        """As `_set`; the observer is told of it."""
        was_there = node.values[tier][index] != ABSENT
        self._set(node, tier, index, value)
        if self._observer is None or was_there == (value != ABSENT):
            return
        if was_there:
            self._observer.left(node, tier, [index])
        else:
            self._observer.entered(node, tier, index, 1)

    def _set(self, node: Node, tier: Tier, index: int, value: int) -> None:
        """Any change of one page in one tier, with all that follows for the tree."""
        before = node.num[tier]
        node.put(tier, index, value)
        self._count(node, tier, node.num[tier] - before)
        if node.num[tier] > before == 0:
            self._appeared(node, tier)
        elif node.num[tier] == 0 < before:
            self._vanished(node, tier)

    def _count(self, node: Node, tier: Tier, change: int) -> None:
        self._num_pages[tier, None] += change
        self._num_pages[tier, node.owner] += change
        if tier is Tier.DEVICE and node.refs:
            self._num_locked += change

    def _appeared(self, node: Node, tier: Tier) -> None:
        """A node without pages in the tier has some now."""
        self._enqueue(node, tier)
        is_known = bool(node.below[tier])
        while not is_known and node.parent is not None:
            node = node.parent
            is_known = node.holds(tier)
            node.below[tier] += 1

    def _vanished(self, node: Node, tier: Tier) -> None:
        """A node has no pages in the tier any more."""
        while not node.holds(tier) and node.parent is not None:
            node = node.parent
            node.below[tier] -= 1
        self._enqueue(node, tier)

    def _leave(self, node: Node, tier: Tier, n: int) -> Leaving:
        indices = node.tail(tier, n)
        values = [node.values[tier][index] for index in indices]
        for index in indices:
            self._set(node, tier, index, ABSENT)
        if self._observer is not None:
            self._observer.left(node, tier, indices)
        return Leaving(node, indices, values)

    def _prune(self, node: Node) -> None:
        """Forget pages at the tree's ends that are in no tier."""
        while node.parent is not None and node.is_alive and not node.children:
            if node in self._spilling:
                return
            key = node.first_key
            node.truncate(max(node.ends))
            if len(node):
                return
            assert not node.refs, "a locked run lost its pages"
            node.is_alive = False
            del node.parent.children[key]
            node = node.parent

    def _can_go(self, node: Node, tier: Tier) -> bool:
        is_locked = tier is Tier.DEVICE and node.refs
        return node.is_alive and bool(node.num[tier]) and not (node.below[tier] or is_locked)

    def _queue(self, tier: Tier, owner: str | None) -> _Queue:
        """An owner's queue is begun when it is first asked for."""
        if (tier, owner) not in self._queues:
            self._queues[tier, owner] = []
            for node in self._nodes():
                if node.owner == owner:
                    self._enqueue(node, tier)
        return self._queues[tier, owner]

    def _enqueue(self, node: Node, tier: Tier) -> None:
        """Queue a node that may go; a later use is noticed when its entry comes up."""
        if not self._can_go(node, tier):
            return
        for owner in (None, node.owner):
            flag = queue_flag(tier, owner)
            if not node.queued[flag] and (tier, owner) in self._queues:
                self._num_entries += 1
                entry = (self._ranks[tier](node), self._num_entries, node)
                heapq.heappush(self._queues[tier, owner], entry)
                node.queued[flag] = True

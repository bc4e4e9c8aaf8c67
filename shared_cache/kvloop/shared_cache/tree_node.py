"""One node of the radix tree: a run of pages without a branch, and where each of them lies."""

from __future__ import annotations

import enum
from array import array

from kvloop.shared_cache.keys import KEY_BYTES

ABSENT = -1


class Tier(enum.IntEnum):
    """Where a page can be; its value in a tier is a device page, a host slot, a `Stored`."""

    DEVICE = 0
    HOST = 1
    STORAGE = 2


TIERS = tuple(Tier)
_TYPECODES = {Tier.DEVICE: "i", Tier.HOST: "i", Tier.STORAGE: "b"}


class Node:
    """41 bytes a page; every request that uses one of its pages uses all (the tree splits it)."""

    __slots__ = (
        "below",
        "children",
        "ends",
        "hits",
        "is_alive",
        "keys",
        "last_used",
        "num",
        "owner",
        "parent",
        "priority",
        "queued",
        "refs",
        "values",
    )

    def __init__(self, parent: Node | None, keys: bytes | bytearray, owner: str = "") -> None:
        self.parent = parent
        self.children: dict[bytes, Node] = {}
        self.keys = bytearray(keys)
        length = len(keys) // KEY_BYTES
        self.values = [array(_TYPECODES[tier], [ABSENT]) * length for tier in TIERS]
        self.num = [0, 0, 0]
        """Pages in each tier."""
        self.ends = [0, 0, 0]
        """One past the last page in each tier."""
        self.below = [0, 0, 0]
        """Children that have pages in each tier, in themselves or below."""
        self.queued = [False] * 6
        """By tier: has an entry in the tier's queue; then the same for its owner's queue."""
        self.owner = owner
        self.refs = 0
        self.last_used = 0
        self.hits = 0
        self.priority = 0
        self.is_alive = True

    def __len__(self) -> int:
        return len(self.keys) // KEY_BYTES

    @property
    def first_key(self) -> bytes:
        """Under which its parent knows it."""
        return bytes(self.keys[:KEY_BYTES])

    def holds(self, tier: Tier) -> bool:
        """Whether it or anything below has pages in the tier."""
        return bool(self.num[tier] or self.below[tier])

    def key(self, index: int) -> bytes:
        """The key of one page."""
        return bytes(self.keys[index * KEY_BYTES : (index + 1) * KEY_BYTES])

    def shared(self, blob: bytes, start: int) -> int:
        """How many of its pages continue `blob` (keys in a row) from page `start`."""
        count = min(len(self), len(blob) // KEY_BYTES - start)
        if self._equals(blob, start, 0, count):
            return count
        low, high = 0, count - 1  # a key names all before it: the first difference is by bisection
        while low < high:
            middle = (low + high + 1) // 2
            if self._equals(blob, start, middle - 1, middle):
                low = middle
            else:
                high = middle - 1
        return low

    def _equals(self, blob: bytes, start: int, first: int, last: int) -> bool:
        mine = self.keys[first * KEY_BYTES : last * KEY_BYTES]
        return mine == blob[(start + first) * KEY_BYTES : (start + last) * KEY_BYTES]

    def put(self, tier: Tier, index: int, value: int) -> None:
        """Set a page's value in a tier; the counts of this node only."""
        old = self.values[tier][index]
        self.values[tier][index] = value
        self.num[tier] += (value != ABSENT) - (old != ABSENT)
        if value != ABSENT:
            self.ends[tier] = max(self.ends[tier], index + 1)
        elif index + 1 == self.ends[tier]:
            self._lower_end(tier)

    def last_value(self, tier: Tier) -> int:
        """Of its last page in the tier, which it must have."""
        return self.values[tier][self.ends[tier] - 1]

    def tail(self, tier: Tier, n: int) -> list[int]:
        """Indices of the last `n` pages in the tier, last first."""
        values, index, found = self.values[tier], self.ends[tier] - 1, list[int]()
        while index >= 0 and len(found) < n:
            if values[index] != ABSENT:
                found.append(index)
            index -= 1
        return found

    def clear(self, tier: Tier) -> None:
        """Take all its pages out of a tier, and say the same of all below."""
        values = self.values[tier]
        self.values[tier] = array(values.typecode, [ABSENT]) * len(values)
        self.num[tier] = self.ends[tier] = self.below[tier] = 0

    def truncate(self, length: int) -> None:
        """Forget the pages from `length` on, which are in no tier."""
        del self.keys[length * KEY_BYTES :]
        for values in self.values:
            del values[length:]

    def split(self, at: int) -> Node:
        """Move the first `at` pages into a new parent, and return that; tree counts stay true."""
        upper = Node(self.parent, self.keys[: at * KEY_BYTES], self.owner)
        if self.parent is not None:
            self.parent.children[self.first_key] = upper
        del self.keys[: at * KEY_BYTES]
        for tier in TIERS:
            upper.values[tier], self.values[tier] = self.values[tier][:at], self.values[tier][at:]
        for node in (upper, self):
            node.recount()
        upper.refs, upper.hits = self.refs, self.hits
        upper.last_used, upper.priority = self.last_used, self.priority
        upper.below = [int(self.holds(tier)) for tier in TIERS]
        upper.children = {self.first_key: self}
        self.parent = upper
        return upper

    def recount(self) -> None:
        """Count the pages of each tier anew."""
        for tier in TIERS:
            values = self.values[tier]
            self.num[tier] = len(values) - values.count(ABSENT)
            self.ends[tier] = len(values)
            self._lower_end(tier)

    def _lower_end(self, tier: Tier) -> None:
        values, end = self.values[tier], self.ends[tier]
        while end and values[end - 1] == ABSENT:
            end -= 1
        self.ends[tier] = end

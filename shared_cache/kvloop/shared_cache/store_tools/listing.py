"""What a store holds, put together from a listing of its objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kvloop.shared_cache.backend import StoredObject
from kvloop.shared_cache.page_object import PageShape


@dataclass(slots=True, kw_only=True)
class ListedPage:
    """One page, by its objects; about 300 bytes of memory with its key."""

    namespace: bytes
    key: bytes
    groups: int = 0
    """A bit for each head group that is there."""
    num_bytes: int = 0
    smallest: int = 0
    """Bytes of its smallest object, and of its largest:"""
    largest: int = 0
    used_at: float | None = None
    """Seconds since the epoch; None where the store does not tell."""

    @property
    def num_groups(self) -> int:
        return self.groups.bit_count()

    def add(self, stored: StoredObject) -> None:
        """Take one of its objects in; a second copy of one counts no bytes.

        One of no bytes is just being written, and is not there.
        """
        bit = 1 << stored.group
        if stored.num_bytes and not self.groups & bit:
            size = stored.num_bytes
            self.smallest = min(self.smallest, size) if self.groups else size
            self.largest = max(self.largest, size)
            self.num_bytes += stored.num_bytes
            self.groups |= bit
        self.used_at = _latest(self.used_at, stored.used_at)

    def is_complete(self, head_groups: int) -> bool:
        """Whether all its head groups are there."""
        wanted = (1 << head_groups) - 1
        return self.groups & wanted == wanted

    def fits(self, shape: PageShape) -> bool:
        """Whether its objects are as long as they must be."""
        return self.smallest == self.largest == shape.object_bytes


@dataclass(slots=True, kw_only=True)
class Listing:
    """The objects of one namespace."""

    namespace: bytes
    pages: dict[bytes, ListedPage] = field(default_factory=dict)
    num_records: int = 0
    record_bytes: int = 0

    @property
    def num_bytes(self) -> int:
        """Of pages and records."""
        return self.record_bytes + sum(page.num_bytes for page in self.pages.values())

    @property
    def head_groups(self) -> int:
        """As many as any of its pages has: what is known of it without a manifest."""
        return max((page.num_groups for page in self.pages.values()), default=1)

    def add(self, stored: StoredObject) -> None:
        """Take one object in."""
        if stored.key is None:
            self.num_records += 1
            self.record_bytes += stored.num_bytes
            return
        page = self.pages.get(stored.key)
        if page is None:
            page = ListedPage(namespace=self.namespace, key=stored.key)
            self.pages[stored.key] = page
        page.add(stored)


def listings(objects: Iterable[StoredObject]) -> dict[bytes, Listing]:
    """The namespaces of a store, by digest."""
    found: dict[bytes, Listing] = {}
    for stored in objects:
        if stored.namespace not in found:
            found[stored.namespace] = Listing(namespace=stored.namespace)
        found[stored.namespace].add(stored)
    return found


def by_use(pages: Iterable[ListedPage]) -> list[ListedPage]:
    """The least recently used first, those of unknown use at the end, equal ones by key."""

    def rank(page: ListedPage) -> tuple[bool, float, bytes]:
        return page.used_at is None, page.used_at or 0.0, page.key

    return sorted(pages, key=rank)


def _latest(one: float | None, other: float | None) -> float | None:
    return max((at for at in (one, other) if at is not None), default=None)

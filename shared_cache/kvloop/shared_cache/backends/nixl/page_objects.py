"""Pages as the objects that a store keeps: names and places, group by group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from kvloop.shared_cache.backends.nixl.agent import Place
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import object_name


class PageObjects:
    """Of one namespace and pool. A page's objects stand one after the other in all sequences."""

    def __init__(self, pool: HostPool, namespace: bytes) -> None:
        self.num_bytes = pool.shape.object_bytes
        """Of each object."""
        self.num_groups = pool.shape.head_groups
        """Objects of each page."""
        self._pool = pool
        self._namespace = namespace

    def names(self, keys: Sequence[bytes]) -> list[str]:
        """Of all objects of these pages."""
        groups = range(self.num_groups)
        return [object_name(self._namespace, key, group) for key in keys for group in groups]

    def place(self, slots: Sequence[int], index: int) -> Place:
        """Where the object of this index among all of these pages' lies in the pool."""
        page, group = divmod(index, self.num_groups)
        return Place(self._pool.address(slots[page], group), self.num_bytes)

    def view(self, slots: Sequence[int], index: int) -> memoryview:
        """Its bytes in the pool."""
        page, group = divmod(index, self.num_groups)
        return self._pool.group_view(slots[page], group)

    def all_of(self, flags: Iterable[bool]) -> list[bool]:
        """Page by page, whether all its objects' flags are set."""
        return [all(page) for page in self._pages(flags)]

    def any_of(self, flags: Iterable[bool]) -> list[bool]:
        """Page by page, whether one of its objects' flags is set."""
        return [any(page) for page in self._pages(flags)]

    def _pages(self, flags: Iterable[bool]) -> Iterable[list[bool]]:
        rest = iter(flags)
        return iter(lambda: list(islice(rest, self.num_groups)), [])

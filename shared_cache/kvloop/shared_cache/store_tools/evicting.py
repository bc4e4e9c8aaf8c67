"""Which pages go when a store is thinned out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kvloop.shared_cache.store_tools.listing import ListedPage, by_use
from kvloop.shared_cache.store_tools.open_store import OpenStore
from kvloop.shared_cache.store_tools.reading import batches

_AT_ONCE = 256


def unused_since(pages: Iterable[ListedPage], before: float) -> list[ListedPage]:
    """Pages last used before that time; those of unknown use are none of them."""
    return [page for page in by_use(pages) if page.used_at is not None and page.used_at < before]


def beyond(pages: Iterable[ListedPage], num_bytes: int) -> list[ListedPage]:
    """The least recently used pages, as many as must go for the others to fit into `num_bytes`."""
    ordered = by_use(pages)
    excess = sum(page.num_bytes for page in ordered) - num_bytes
    gone: list[ListedPage] = []
    for page in ordered:
        if excess <= 0:
            break
        gone.append(page)
        excess -= page.num_bytes
    return gone


def evict(store: OpenStore, keys: Sequence[bytes], advance: Callable[[int], None]) -> int:
    """Remove pages; returns how many the store said to have removed. Raises StorageError."""
    num_gone = 0
    for batch in batches(keys, _AT_ONCE):
        num_gone += sum(store.delete(batch))
        advance(len(batch))
    return num_gone

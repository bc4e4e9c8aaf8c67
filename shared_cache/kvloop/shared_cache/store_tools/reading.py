"""Reading pages for a tool: what came, and whether it checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape, check
from kvloop.shared_cache.wire import Role

Item = TypeVar("Item")

_BATCH_BYTES = 32 << 20
_MAX_BATCH = 32
_BATCHES_AT_ONCE = 2  # one is read while the other is written


class ReadPage(NamedTuple):
    """A page that was read: one of both is set; a page that was not there has neither."""

    writer: Role | None = None
    fault: str | None = None


def staging_pool(shape: PageShape) -> HostPool:
    """Room for two batches, a few dozen pages at most: a tool's memory does not grow."""
    return HostPool(shape, _BATCHES_AT_ONCE * pages_per_batch(shape))


def pages_per_batch(shape: PageShape) -> int:
    """Pages that one call moves."""
    return max(1, min(_MAX_BATCH, _BATCH_BYTES // shape.slot_bytes))


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in order, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def checked(
    pool: HostPool,
    namespace: bytes,
    keys: Sequence[bytes],
    slots: Sequence[int],
    found: Sequence[bool],
) -> list[ReadPage]:
    """Check the trailers of pages that a backend's `get` has read into these slots."""
    return [
        _checked(pool, namespace, key, slot) if is_found else ReadPage()
        for key, slot, is_found in zip(keys, slots, found, strict=True)
    ]


def _checked(pool: HostPool, namespace: bytes, key: bytes, slot: int) -> ReadPage:
    """The first faulty group's fault, or the writer."""
    for group in range(pool.shape.head_groups):
        verdict = check(pool.group_view(slot, group), pool.shape, key, namespace, group)
        if verdict.fault is not None:
            return ReadPage(fault=verdict.fault.value)
    return ReadPage(writer=verdict.writer)

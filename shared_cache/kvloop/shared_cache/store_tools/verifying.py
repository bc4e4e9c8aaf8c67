"""Does every page of a namespace still check?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kvloop.shared_cache.store_tools.open_store import OpenStore
from kvloop.shared_cache.store_tools.reading import ReadPage, batches, checked, pages_per_batch

Advance = Callable[[int, int], None]
"""Told of pages that are done, and of the bytes that were moved for them."""

_NAMED = 1000


class BadPage(NamedTuple):
    """A page that must not be served."""

    key: bytes
    fault: str
    """Of its trailer, as `page_object.Fault` has it; `length`: its objects are not as long as they
    must be; `unreadable`: the store says that it is there, and does not give it."""


@dataclass(slots=True, kw_only=True)
class VerifyReport:
    """What was found."""

    num_good: Counter[str] = field(default_factory=Counter)
    """Pages by writer."""
    num_faults: Counter[str] = field(default_factory=Counter)
    """Pages by fault."""
    num_gone: int = 0
    """Pages that are not there, or not any more."""
    num_deleted: int = 0
    num_bytes: int = 0
    """That were read."""
    bad: list[BadPage] = field(default_factory=list)
    """The first thousand."""


def verify(
    store: OpenStore,
    keys: Sequence[bytes],
    *,
    misfits: Collection[bytes] = (),
    is_deleting: bool = False,
    advance: Advance,
) -> VerifyReport:
    """Read and check these pages; damaged ones are removed where `is_deleting`.

    `misfits`: those that the store listed with another length than a page's. A store may remove
    them as they are read. Raises StorageError.
    """
    report = VerifyReport()
    size = pages_per_batch(store.pool.shape)
    slots = store.pool.alloc(size)
    assert slots is not None
    for batch in batches(keys, size):
        pages = _read(store, batch, slots[: len(batch)], misfits)
        bad = [
            BadPage(key, page.fault) for key, page in zip(batch, pages, strict=True) if page.fault
        ]
        if is_deleting and bad:
            store.delete([page.key for page in bad])
            report.num_deleted += store.exists([page.key for page in bad]).count(False)
        num_bytes = _count(report, pages, bad, store.pool.shape.slot_bytes)
        advance(len(batch), num_bytes)
    store.pool.free(slots)
    return report


def _read(
    store: OpenStore, keys: Sequence[bytes], slots: Sequence[int], misfits: Collection[bytes]
) -> list[ReadPage]:
    found = store.get(keys, slots)
    pages = checked(store.pool, store.namespace, keys, slots, found)
    lost = [key for key, is_found in zip(keys, found, strict=True) if not is_found]
    if not lost:
        return pages
    still = [key for key, is_there in zip(lost, store.exists(lost), strict=True) if is_there]
    faults = dict.fromkeys(still, "unreadable") | dict.fromkeys(set(lost) & set(misfits), "length")
    return [
        ReadPage(fault=faults[key]) if key in faults else page
        for key, page in zip(keys, pages, strict=True)
    ]


def _count(
    report: VerifyReport, pages: Sequence[ReadPage], bad: Sequence[BadPage], page_bytes: int
) -> int:
    report.num_good.update(page.writer for page in pages if page.writer is not None)
    report.num_faults.update(page.fault for page in bad)
    report.bad += bad[: _NAMED - len(report.bad)]
    num_gone = pages.count(ReadPage())
    report.num_gone += num_gone
    num_bytes = (len(pages) - num_gone) * page_bytes
    report.num_bytes += num_bytes
    return num_bytes

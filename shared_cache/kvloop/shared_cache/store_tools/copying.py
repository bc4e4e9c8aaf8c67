"""Pages from one store to another: the same bytes, checked on the way, and only what lacks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kvloop.shared_cache.errors import CapacityError
from kvloop.shared_cache.manifest import RECORD, Manifest, decode_manifest, encode_manifest
from kvloop.shared_cache.store_tools.open_store import OpenStore
from kvloop.shared_cache.store_tools.reading import batches, checked, pages_per_batch
from kvloop.shared_cache.store_tools.verifying import Advance

_TRIES = 4
_BETWEEN_TRIES_S = 0.5  # a store that is full may be making room


@dataclass(slots=True, kw_only=True)
class CopyReport:
    """What became of the pages; grows while it is copied, so that an interrupted copy can tell."""

    num_copied: int = 0
    num_there: int = 0
    """Pages that the target had already."""
    num_damaged: Counter[str] = field(default_factory=Counter)
    """Pages of the source that do not check, by fault; they are not copied."""
    num_gone: int = 0
    """Pages that the source gave no more."""
    num_no_room: int = 0
    """Pages that the target did not take."""
    num_bytes: int = 0
    """Of the pages copied."""
    has_manifest: bool = False
    """Whether the target keeps the namespace's manifest now."""


class _Read(NamedTuple):
    """A batch on its way from the source; `finish` waits for it."""

    keys: Sequence[bytes]
    slots: Sequence[int]
    finish: Callable[[], list[bool]]


def copy_manifest(target: OpenStore, manifest: Manifest) -> bool:
    """Give the target the namespace's manifest; whether it has one now."""
    record = target.get_small(RECORD)
    if record is not None and decode_manifest(record, target.namespace) is not None:
        return True
    return target.put_small(RECORD, encode_manifest(manifest))


def copy_pages_between(
    source: OpenStore,
    target: OpenStore,
    keys: Sequence[bytes],
    report: CopyReport,
    advance: Advance,
) -> None:
    """Copy what the target lacks; both are open over one pool (`staging_pool`).

    The next batch is read while one is written. Run again, it goes on where it was stopped. Raises
    StorageError, and CapacityError where the target took nothing of a whole batch.
    """
    assert source.pool is target.pool and source.namespace == target.namespace
    reads = _reads(source, target, keys, report, advance)
    read = next(reads, None)
    while read is not None:
        good = _finish(source, read, report, advance)
        following = next(reads, None)
        _write(target, good, report, advance)
        source.pool.free(read.slots)
        read = following


def _reads(
    source: OpenStore,
    target: OpenStore,
    keys: Sequence[bytes],
    report: CopyReport,
    advance: Advance,
) -> Iterator[_Read]:
    for batch in batches(keys, pages_per_batch(source.pool.shape)):
        is_there = target.exists(batch)
        lacking = [key for key, there in zip(batch, is_there, strict=True) if not there]
        report.num_there += len(batch) - len(lacking)
        advance(len(batch) - len(lacking), 0)
        if lacking:
            slots = source.pool.alloc(len(lacking))
            assert slots is not None
            yield _Read(lacking, slots, source.begin_get(lacking, slots))


def _finish(
    source: OpenStore, read: _Read, report: CopyReport, advance: Advance
) -> list[tuple[bytes, int]]:
    """Keys and slots of the pages that came whole."""
    found = read.finish()
    pages = checked(source.pool, source.namespace, read.keys, read.slots, found)
    report.num_damaged.update(page.fault for page in pages if page.fault is not None)
    report.num_gone += found.count(False)
    good = [
        (key, slot)
        for key, slot, page in zip(read.keys, read.slots, pages, strict=True)
        if page.writer is not None
    ]
    advance(len(pages) - len(good), 0)
    return good


def _write(
    target: OpenStore, pages: list[tuple[bytes, int]], report: CopyReport, advance: Advance
) -> None:
    rest = pages
    for i in range(_TRIES):
        if not rest:
            break
        if i:
            time.sleep(_BETWEEN_TRIES_S)
        stored = target.set([key for key, _ in rest], [slot for _, slot in rest])
        rest = [page for page, is_stored in zip(rest, stored, strict=True) if not is_stored]
    num_stored = len(pages) - len(rest)
    num_bytes = num_stored * target.pool.shape.slot_bytes
    report.num_copied += num_stored
    report.num_bytes += num_bytes
    report.num_no_room += len(rest)
    advance(len(pages), num_bytes)
    if pages and not num_stored:
        raise CapacityError(f"{target.label} has no room for more pages")

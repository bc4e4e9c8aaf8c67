"""`kvloop cache ls`: the pages of a store."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice

from kvloop.cli.cache.screen import console, note, print_json
from kvloop.cli.cache.selection import Chosen, choose
from kvloop.cli.cache.wanted import Wanted
from kvloop.cli.cache.words import age_words, bytes_words, pages_words
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.store_tools.listing import ListedPage, by_use
from kvloop.shared_cache.store_tools.open_store import OpenStore
from kvloop.shared_cache.store_tools.reading import batches

_ASKED_AT_ONCE = 256
_BESIDE_THE_KEY = 28  # columns


def ls(wanted: Wanted, *, limit: int, keys_only: bool, as_json: bool) -> int:
    """Show the most recently used pages first, `limit` at most (0: all); 0."""
    chosen = choose(wanted)
    all_pages = [(one, page) for one in chosen for page in _pages(one, wanted.deadline_s)]
    shown = list(islice(all_pages, limit or None))
    if as_json:
        for one, page in shown:
            print_json(_json(one, page))
    elif keys_only:
        for _, page in shown:
            print(page.key.hex())
    else:
        _show(chosen, shown)
    if len(shown) < len(all_pages):
        left = pages_words(len(all_pages) - len(shown))
        note(f"{left} more; --limit 0 shows all")
    return 0


def _pages(one: Chosen, deadline_s: float) -> Iterator[ListedPage]:
    if one.listing is not None:
        known = [page for page in one.listing.pages.values() if page.used_at is not None]
        yield from reversed(by_use(known))
        yield from by_use(page for page in one.listing.pages.values() if page.used_at is None)
        return
    shape = one.shape
    with OpenStore(one.address, HostPool(shape, 1), one.namespace, deadline_s) as store:
        for batch in batches(one.keys, _ASKED_AT_ONCE):
            for key, is_there in zip(batch, store.exists(batch), strict=True):
                if is_there:
                    yield ListedPage(
                        namespace=one.namespace,
                        key=key,
                        groups=(1 << shape.head_groups) - 1,
                        num_bytes=shape.slot_bytes,
                    )


def _json(one: Chosen, page: ListedPage) -> dict[str, object]:
    return {
        "tier": one.tier or None,
        "store": one.address.label,
        "namespace": one.namespace.hex(),
        "key": page.key.hex(),
        "bytes": page.num_bytes,
        "groups": [group for group in range(page.groups.bit_length()) if page.groups >> group & 1],
        "used": page.used_at,
    }


def _show(chosen: Sequence[Chosen], shown: Sequence[tuple[Chosen, ListedPage]]) -> None:
    now = time.time()
    width = console().width if sys.stdout.isatty() else 1000
    digits = min(64, max(12, width - _BESIDE_THE_KEY))
    heading: Chosen | None = None
    for one, page in shown:
        if one is not heading and len(chosen) > 1:
            model = f" {one.manifest.model}" if one.manifest is not None else ""
            print(f"{one.tier}{':' if one.tier else ''}{one.namespace.hex()}{model}")
        heading = one
        key = page.key.hex()[:digits]
        groups = f"{page.num_groups}/{one.head_groups}"
        size, age = bytes_words(page.num_bytes), age_words(page.used_at, now)
        print(f"{key}  {size:>10}  {groups:>5}  {age:>5}")

"""`kvloop cache evict`: take pages out of a store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from kvloop.cli.cache.screen import meter, note, print_json
from kvloop.cli.cache.selection import DIGITS, Chosen, choose
from kvloop.cli.cache.wanted import Wanted
from kvloop.cli.cache.words import bytes_words, pages_words
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnsupported
from kvloop.shared_cache.store_tools.address import leaves, tiers
from kvloop.shared_cache.store_tools.evicting import beyond, evict, unused_since
from kvloop.shared_cache.store_tools.listing import ListedPage
from kvloop.shared_cache.store_tools.open_store import OpenStore
from kvloop.shared_cache.store_tools.survey import clear_namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictFlags:
    """Which pages go: those that either of the first two names, or all that were chosen."""

    older_than_s: float | None
    to_bytes: int | None
    is_all: bool
    is_dry_run: bool
    as_json: bool

    @property
    def has_limits(self) -> bool:
        return self.older_than_s is not None or self.to_bytes is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Victims:
    """What goes of one namespace in one store."""

    chosen: Chosen
    keys: Sequence[bytes]
    num_bytes: int
    num_left: int
    """Pages that stay, and their bytes:"""
    bytes_left: int


def run_evict(wanted: Wanted, flags: EvictFlags) -> int:
    """Remove them and say how many went; 0."""
    _require_one_way(wanted, flags)
    try:
        chosen = choose(wanted)
    except StorageUnsupported:
        if not flags.is_all or wanted.namespace is None or len(wanted.namespace) != DIGITS:
            raise
        return _clear_unlisted(wanted, flags)
    plan = _plan(chosen, flags)
    num_gone = 0 if flags.is_dry_run else sum(_remove(one, wanted, flags) for one in plan)
    _say(plan, num_gone, flags)
    return 0


def _require_one_way(wanted: Wanted, flags: EvictFlags) -> None:
    if sum((flags.has_limits, flags.is_all, wanted.keys is not None)) != 1:
        raise ConfigError(
            "say which pages go: --older-than AGE, --to SIZE or both; or --keys FILE; or --all"
        )
    if flags.to_bytes is not None and tiers(wanted.address):
        raise ConfigError(
            f"--to thins out one store, and {wanted.address.label} is made of several: name one"
        )


def _plan(chosen: Sequence[Chosen], flags: EvictFlags) -> list[_Victims]:
    pages = [page for one in chosen if one.listing for page in one.listing.pages.values()]
    _require_uses(chosen, pages, flags)
    going: set[tuple[str, bytes, bytes]] = set()
    for one in chosen:
        mine = one.listing.pages.values() if one.listing is not None else ()
        if flags.older_than_s is not None:
            old = unused_since(mine, time.time() - flags.older_than_s)
            going |= {(one.tier, page.namespace, page.key) for page in old}
    if flags.to_bytes is not None:
        going |= {("", page.namespace, page.key) for page in beyond(pages, flags.to_bytes)}
    return [_victims(one, going, flags) for one in chosen]


def _require_uses(chosen: Sequence[Chosen], pages: Sequence[ListedPage], flags: EvictFlags) -> None:
    if not flags.has_limits or any(page.used_at is not None for page in pages) or not pages:
        return
    where = ", ".join(sorted({one.address.label for one in chosen}))
    if flags.older_than_s is not None:
        raise StorageUnsupported(f"{where} does not tell when pages were used: --older-than cannot")
    note(f"{where} does not tell when pages were used: they go in the order of their keys")


def _victims(one: Chosen, going: set[tuple[str, bytes, bytes]], flags: EvictFlags) -> _Victims:
    if one.listing is None:
        num_bytes = len(one.keys) * (one.known_shape.slot_bytes if one.known_shape else 0)
        return _Victims(chosen=one, keys=one.keys, num_bytes=num_bytes, num_left=0, bytes_left=0)
    pages = list(one.listing.pages.values())
    mine = [p for p in pages if flags.is_all or (one.tier, p.namespace, p.key) in going]
    num_bytes = sum(page.num_bytes for page in mine)
    return _Victims(
        chosen=one,
        keys=[page.key for page in mine],
        num_bytes=num_bytes,
        num_left=len(pages) - len(mine),
        bytes_left=sum(page.num_bytes for page in pages) - num_bytes,
    )


def _remove(victims: _Victims, wanted: Wanted, flags: EvictFlags) -> int:
    one = victims.chosen
    if not victims.keys and not flags.is_all:
        return 0
    pool = HostPool(one.shape_for_names, 1)
    name = f"removing {one.namespace.hex()[:12]}"
    page_bytes = victims.num_bytes // max(1, len(victims.keys))
    with (
        OpenStore(one.address, pool, one.namespace, wanted.deadline_s) as store,
        meter(name, len(victims.keys), page_bytes) as progress,
    ):
        num_gone = evict(store, victims.keys, lambda n: progress.advance(n, n * page_bytes))
        if flags.is_all:
            store.clear()  # the records too: by the missing epoch nodes see that all is gone
    return num_gone


def _clear_unlisted(wanted: Wanted, flags: EvictFlags) -> int:
    if flags.is_dry_run:
        raise StorageUnsupported(f"{wanted.address.label} cannot list: no --dry-run")
    namespace = bytes.fromhex(wanted.namespace or "")
    for _, address in leaves(wanted.address):
        clear_namespace(address, namespace, wanted.deadline_s)
    if flags.as_json:
        print_json({"cleared": True})
    else:
        print(f"cleared {namespace.hex()[:12]}; the store cannot list, and so not count")
    return 0


def _say(plan: Sequence[_Victims], num_gone: int, flags: EvictFlags) -> None:
    num_pages = sum(len(one.keys) for one in plan)
    num_bytes = sum(one.num_bytes for one in plan)
    num_left, bytes_left = sum(p.num_left for p in plan), sum(p.bytes_left for p in plan)
    is_counted = all(one.chosen.listing is not None for one in plan)
    if flags.as_json:
        left = {"pages_left": num_left, "bytes_left": bytes_left} if is_counted else {}
        sums = {"chosen": num_pages, "chosen_bytes": num_bytes, "removed": num_gone}
        print_json({"dry_run": flags.is_dry_run, **sums, **left})
        return
    what = f"{pages_words(num_pages)}, {bytes_words(num_bytes)}"
    done = f"would remove {what}" if flags.is_dry_run else f"removed {num_gone:,} of {what}"
    rest = f"; {pages_words(num_left)}, {bytes_words(bytes_left)} stay" if is_counted else ""
    print(done + rest)

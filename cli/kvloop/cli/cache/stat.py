"""`kvloop cache stat`: what a store holds, by namespace."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from rich import box
from rich.table import Table

from kvloop.cli.cache.screen import console, note, print_json
from kvloop.cli.cache.selection import Manifests, complete_pages
from kvloop.cli.cache.wanted import Wanted
from kvloop.cli.cache.words import age_words, bytes_words
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.manifest import Manifest
from kvloop.shared_cache.storage_errors import StorageError, StorageUnsupported
from kvloop.shared_cache.store_tools.address import leaves
from kvloop.shared_cache.store_tools.listing import Listing
from kvloop.shared_cache.store_tools.survey import Survey, look

_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One namespace of one store."""

    namespace: str
    manifest: Manifest | None
    num_pages: int
    """Complete ones."""
    num_incomplete: int
    num_records: int
    num_bytes: int
    oldest: float | None
    newest: float | None


def stat(wanted: Wanted, *, as_json: bool) -> int:
    """Show it; 1 where a tier of several failed, and StorageError where all did."""
    manifests = Manifests(wanted.address, wanted.deadline_s)
    surveys, has_failed = _surveys(wanted)
    stores = [_store(wanted, survey, manifests) for survey in surveys]
    if as_json:
        print_json({"stores": [_json(survey, rows) for survey, rows in stores]})
    else:
        for survey, rows in stores:
            _show(survey, rows)
    return 1 if has_failed else 0


def _surveys(wanted: Wanted) -> tuple[list[Survey], bool]:
    """Of each tier that can be listed; whether one failed, which is spoken of."""
    surveys: list[Survey] = []
    errors: list[StorageError] = []
    for tier, address in leaves(wanted.address):
        try:
            surveys.append(look(tier, address, wanted.deadline_s))
        except StorageUnsupported as error:
            errors.append(
                StorageUnsupported(
                    f"{address.label} cannot list what it holds ({error}): `kvloop cache ls "
                    "--namespace HEX --keys FILE` says which pages are there"
                )
            )
        except StorageError as error:
            errors.append(error)
    if not surveys:
        raise errors[0]
    for failure in errors:
        note(str(failure))
    return surveys, any(not isinstance(failure, StorageUnsupported) for failure in errors)


def _store(wanted: Wanted, survey: Survey, manifests: Manifests) -> tuple[Survey, list[_Row]]:
    chosen = {
        namespace: listing
        for namespace, listing in sorted(survey.namespaces.items())
        if namespace.hex().startswith(wanted.namespace or "")
    }
    if wanted.namespace is not None and not chosen and not survey.tier:
        raise ConfigError(
            f"--namespace: no namespace of {survey.address.label} begins with {wanted.namespace}"
        )
    rows = [_row(listing, manifests.of(namespace)) for namespace, listing in chosen.items()]
    return survey, rows


def _row(listing: Listing, manifest: Manifest | None) -> _Row:
    groups = manifest.shape.head_groups if manifest is not None else listing.head_groups
    num_pages = len(complete_pages(listing, groups))
    uses = [page.used_at for page in listing.pages.values() if page.used_at is not None]
    return _Row(
        namespace=listing.namespace.hex(),
        manifest=manifest,
        num_pages=num_pages,
        num_incomplete=len(listing.pages) - num_pages,
        num_records=listing.num_records,
        num_bytes=listing.num_bytes,
        oldest=min(uses, default=None),
        newest=max(uses, default=None),
    )


def _json(survey: Survey, rows: Sequence[_Row]) -> dict[str, Any]:
    return {
        "tier": survey.tier or None,
        "store": survey.address.label,
        "namespaces": [
            {
                "namespace": row.namespace,
                "manifest": None if row.manifest is None else msgspec.to_builtins(row.manifest),
                "pages": row.num_pages,
                "incomplete_pages": row.num_incomplete,
                "records": row.num_records,
                "bytes": row.num_bytes,
                "oldest_use": row.oldest,
                "newest_use": row.newest,
            }
            for row in rows
        ],
        "stats": survey.stats,
    }


def _show(survey: Survey, rows: Sequence[_Row]) -> None:
    screen = console()
    title = survey.address.label if not survey.tier else f"{survey.tier}: {survey.address.label}"
    if not rows:
        screen.print(f"{title}: no pages", markup=False)
        return
    screen.print(_table(title, rows))
    told = {name: value for name, value in survey.stats.items() if value}
    if told:
        stats = ", ".join(f"{name} {value:g}" for name, value in sorted(told.items()))
        screen.print(f"the store's own counters: {stats}", markup=False)


def _table(title: str, rows: Sequence[_Row]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    has_incomplete = any(row.num_incomplete for row in rows)
    table.add_column("namespace", no_wrap=True)
    table.add_column("pages of", overflow="fold")
    for name in ("pages", *(["partial"] if has_incomplete else []), "size", "last used"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, has_incomplete))
    if len(rows) > 1:
        table.add_section()
        table.add_row(*_cells(_total(rows), has_incomplete))
    return table


def _cells(row: _Row, has_incomplete: bool) -> list[str]:
    return [
        row.namespace[:_DIGITS],
        _kind(row.manifest) if row.namespace else "",
        f"{row.num_pages:,}",
        *([f"{row.num_incomplete:,}"] if has_incomplete else []),
        bytes_words(row.num_bytes),
        _uses(row),
    ]


def _kind(manifest: Manifest | None) -> str:
    """Such as `smollm2, bfloat16 x 64`: what a page holds of how many tokens."""
    if manifest is None:
        return "? (no manifest)"
    codec = manifest.shape.codec
    kind = manifest.kv_dtype if codec == "none" else codec
    return ", ".join(filter(None, (manifest.model, f"{kind} x {manifest.shape.page_size}".strip())))


def _uses(row: _Row) -> str:
    """Such as `3s-12d` ago: of the last used page, and of the one that was not used longest."""
    now = time.time()
    newest, oldest = age_words(row.newest, now), age_words(row.oldest, now)
    return newest if newest == oldest else f"{newest}-{oldest}"


def _total(rows: Sequence[_Row]) -> _Row:
    return _Row(
        namespace="",
        manifest=None,
        num_pages=sum(row.num_pages for row in rows),
        num_incomplete=sum(row.num_incomplete for row in rows),
        num_records=sum(row.num_records for row in rows),
        num_bytes=sum(row.num_bytes for row in rows),
        oldest=min((row.oldest for row in rows if row.oldest is not None), default=None),
        newest=max((row.newest for row in rows if row.newest is not None), default=None),
    )

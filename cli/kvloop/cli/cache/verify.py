"""`kvloop cache verify`: does every page still check?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kvloop.cli.cache.screen import meter, print_json
from kvloop.cli.cache.selection import Chosen, choose
from kvloop.cli.cache.wanted import Wanted
from kvloop.cli.cache.words import bytes_words, counts_words, pages_words
from kvloop.shared_cache.store_tools.open_store import OpenStore
from kvloop.shared_cache.store_tools.reading import staging_pool
from kvloop.shared_cache.store_tools.verifying import VerifyReport, verify

_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyFlags:
    """How much of it, and what becomes of damaged pages."""

    sample: int | None
    """Pages of each namespace, drawn at random; None: all."""
    seed: int | None
    is_deleting: bool
    as_json: bool


def run_verify(wanted: Wanted, flags: VerifyFlags) -> int:
    """Read, check and say what was found; 1 where a page is damaged."""
    results = [(one, _verify(one, wanted, flags)) for one in choose(wanted)]
    if flags.as_json:
        print_json({"namespaces": [_json(one, report) for one, report in results]})
    else:
        for one, report in results:
            _show(one, report, flags)
        if not results:
            print(f"{wanted.address.label}: no pages")
    return 1 if any(report.num_faults for _, report in results) else 0


def _verify(one: Chosen, wanted: Wanted, flags: VerifyFlags) -> VerifyReport:
    keys, misfits = _sampled(one.keys, flags), one.misfits
    pool = staging_pool(one.shape)
    name = f"verifying {one.namespace.hex()[:12]}"
    with (
        OpenStore(one.address, pool, one.namespace, wanted.deadline_s) as store,
        meter(name, len(keys), pool.shape.slot_bytes) as progress,
    ):
        return verify(
            store,
            keys,
            misfits=misfits,
            is_deleting=flags.is_deleting,
            advance=progress.advance,
        )


def _sampled(keys: Sequence[bytes], flags: VerifyFlags) -> Sequence[bytes]:
    if flags.sample is None or flags.sample >= len(keys):
        return keys
    return random.Random(flags.seed).sample(keys, flags.sample)


def _json(one: Chosen, report: VerifyReport) -> dict[str, Any]:
    return {
        "tier": one.tier or None,
        "store": one.address.label,
        "namespace": one.namespace.hex(),
        "good_by_writer": dict(report.num_good),
        "faults": dict(report.num_faults),
        "gone": report.num_gone,
        "incomplete": one.num_incomplete,
        "deleted": report.num_deleted,
        "bytes": report.num_bytes,
        "bad": [{"key": page.key.hex(), "fault": page.fault} for page in report.bad],
    }


def _show(one: Chosen, report: VerifyReport, flags: VerifyFlags) -> None:
    where = f"{one.tier}: {one.address.label}" if one.tier else one.address.label
    model = f" ({one.manifest.model})" if one.manifest is not None and one.manifest.model else ""
    print(f"{where} {one.namespace.hex()[:12]}{model}")
    good = report.num_good.total()
    by_writer = f", written by {counts_words(report.num_good)}" if good else ""
    print(f"  good       {pages_words(good)}{by_writer}; {bytes_words(report.num_bytes)} read")
    bad = report.num_faults.total()
    print(f"  damaged    {pages_words(bad)}{': ' if bad else ''}{counts_words(report.num_faults)}")
    if report.num_gone:
        print(f"  gone       {pages_words(report.num_gone)}, not there any more")
    if one.num_incomplete:
        print(f"  incomplete {pages_words(one.num_incomplete)}, being written or left behind")
    if flags.is_deleting and bad:
        print(f"  removed    {pages_words(report.num_deleted)}")
    for page in report.bad[:_SHOWN]:
        print(f"  {page.fault:<10} {page.key.hex()}")
    if bad > _SHOWN:
        print(f"  and {bad - _SHOWN:,} more (--json names a thousand)")

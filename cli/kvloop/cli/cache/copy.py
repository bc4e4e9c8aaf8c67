"""`kvloop cache copy` and `warm`: pages from one store into another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from kvloop.cli.cache.screen import meter, note, print_json
from kvloop.cli.cache.selection import Chosen, choose
from kvloop.cli.cache.wanted import Wanted
from kvloop.cli.cache.words import bytes_words, counts_words, pages_words
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.store_tools.address import StoreAddress, tiers
from kvloop.shared_cache.store_tools.copying import CopyReport, copy_manifest, copy_pages_between
from kvloop.shared_cache.store_tools.open_store import OpenStore
from kvloop.shared_cache.store_tools.reading import staging_pool


@dataclass(slots=True, kw_only=True)
class _Job:
    """One namespace on its way."""

    chosen: Chosen
    """Of any of the source's tiers: what the pages look like."""
    keys: Sequence[bytes]
    report: CopyReport = field(default_factory=CopyReport)
    seconds: float = 0.0


def run_copy(wanted: Wanted, target: StoreAddress, *, as_json: bool) -> int:
    """Copy what `target` lacks; 1 where a page could not be copied."""
    if wanted.address == target:
        raise ConfigError(f"SRC and DST are the same store: {target.label}")
    return _run(wanted, target, None, as_json, "copying")


def run_warm(wanted: Wanted, *, limit: int | None, as_json: bool) -> int:
    """Bring pages of the farther tier into the nearer one; `limit`: the last used ones only."""
    below = tiers(wanted.address)
    if not below:
        raise ConfigError(
            f"{wanted.address.label} has one tier: there is none nearer to bring pages into; "
            "warm works on backends chain and zones (copy SRC DST on any two)"
        )
    (_, near), (_, far) = below[0], below[-1]
    return _run(replace(wanted, address=far), near, limit, as_json, "warming")


def _run(wanted: Wanted, target: StoreAddress, limit: int | None, as_json: bool, what: str) -> int:
    jobs = _jobs(wanted, limit)
    try:
        for job in jobs:
            _copy(job, wanted, target, what)
    finally:  # Ctrl-C too: what was copied is there, and is skipped the next time
        if as_json:
            print_json({"namespaces": [_json(job) for job in jobs]})
        else:
            _show(jobs, wanted.address.label, target.label)
    reports = [job.report for job in jobs]
    return 1 if any(r.num_damaged or r.num_no_room for r in reports) else 0


def _jobs(wanted: Wanted, limit: int | None) -> list[_Job]:
    """Each namespace once, with the pages that any tier of the source has whole."""
    by_namespace: dict[bytes, list[Chosen]] = {}
    for one in choose(wanted):
        by_namespace.setdefault(one.namespace, []).append(one)
    jobs = []
    for parts in by_namespace.values():
        keys = list(dict.fromkeys(key for one in parts for key in one.keys))
        jobs.append(_Job(chosen=parts[0], keys=keys if limit is None else keys[-limit:]))
    for job in jobs:
        _ = job.chosen.shape  # before anything is copied: ConfigError where it is not known
    return jobs


def _copy(job: _Job, wanted: Wanted, target: StoreAddress, what: str) -> None:
    pool, namespace = staging_pool(job.chosen.shape), job.chosen.namespace
    started = time.monotonic()
    with ExitStack() as stack:
        stack.callback(lambda: setattr(job, "seconds", time.monotonic() - started))
        source = stack.enter_context(OpenStore(wanted.address, pool, namespace, wanted.deadline_s))
        sink = stack.enter_context(
            OpenStore(target, pool, namespace, wanted.deadline_s, may_be_new=True)
        )
        if job.chosen.manifest is not None:
            job.report.has_manifest = copy_manifest(sink, job.chosen.manifest)
            if not job.report.has_manifest:
                note(f"{target.label} keeps no manifest: give --shape to work on it later")
        name = f"{what} {namespace.hex()[:12]}"
        progress = stack.enter_context(meter(name, len(job.keys), pool.shape.slot_bytes))
        copy_pages_between(source, sink, job.keys, job.report, progress.advance)


def _json(job: _Job) -> dict[str, Any]:
    report = job.report
    return {
        "namespace": job.chosen.namespace.hex(),
        "pages": len(job.keys),
        "copied": report.num_copied,
        "copied_bytes": report.num_bytes,
        "already_there": report.num_there,
        "damaged": dict(report.num_damaged),
        "gone": report.num_gone,
        "no_room": report.num_no_room,
        "manifest": report.has_manifest,
        "seconds": round(job.seconds, 3),
    }


def _show(jobs: Sequence[_Job], source: str, target: str) -> None:
    print(f"{source} -> {target}")
    for job in jobs:
        report = job.report
        rate = bytes_words(report.num_bytes / job.seconds) if job.seconds else "0 B"
        copied = f"{report.num_copied:,} of {pages_words(len(job.keys))} copied"
        print(
            f"  {job.chosen.namespace.hex()[:12]}  {copied}, "
            f"{bytes_words(report.num_bytes)} in {job.seconds:.1f} s ({rate}/s)"
        )
        for number, words in (
            (report.num_there, "were there already"),
            (report.num_damaged.total(), f"damaged, left out: {counts_words(report.num_damaged)}"),
            (report.num_gone, "gone from the source meanwhile"),
            (report.num_no_room, "not taken: no room"),
        ):
            if number:
                print(f"{'':16}{number:,} {words}")
    if not jobs:
        print("  no pages")

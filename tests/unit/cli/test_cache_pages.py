"""`kvloop cache verify`, `evict` and `copy`, on a store in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from page_files import published
from shelf_store import (
    KEYS,
    MODULE,
    NS,
    OTHER,
    SHAPE,
    SHELVES,
    Shelf,
    config,
    describe,
    keys_left,
)

from kvloop.cli.main import main
from kvloop.shared_cache.manifest import RECORD, decode_manifest
from kvloop.shared_cache.page_object import FORMAT_VERSION

Run = Callable[..., tuple[int, str, str]]


def test_verify_of_good_pages_ends_with_status_0(shelf: Shelf, cache: Run) -> None:
    status, out, _ = cache("verify", "--namespace", "11")
    assert status == 0
    assert "good       5 pages, written by prefill 4, decode 1; 40.0 KiB read" in out
    assert "damaged    0 pages\n" in out


def test_verify_names_damaged_pages_and_ends_with_status_1(shelf: Shelf, cache: Run) -> None:
    shelf.flip(NS, KEYS[2], group=1)
    shelf.objects[NS, KEYS[3], 0] = b"short"
    status, out, _ = cache("verify", "--namespace", "11")
    assert status == 1 and "damaged    2 pages: length 1, payload 1" in out
    assert f"payload    {KEYS[2].hex()}" in out and f"length     {KEYS[3].hex()}" in out
    assert len(keys_left(shelf)) == 5


def test_verify_removes_damaged_pages_where_it_is_told_to(shelf: Shelf, cache: Run) -> None:
    shelf.flip(NS, KEYS[2])
    status, out, _ = cache("verify", "--namespace", "11", "--delete")
    assert status == 1 and "removed    1 page" in out
    assert keys_left(shelf) == set(KEYS[:5]) - {KEYS[2]}
    assert cache("verify", "--namespace", "11")[0] == 0


def test_verify_takes_a_sample_that_can_be_drawn_again(shelf: Shelf, cache: Run) -> None:
    for key in KEYS[:4]:
        shelf.flip(NS, key)

    def bad(*flags: str) -> list[str]:
        out = cache("verify", "--json", "--namespace", "11", "--sample", "2", *flags)[1]
        [report] = json.loads(out)["namespaces"]
        assert sum(report["faults"].values()) + sum(report["good_by_writer"].values()) == 2
        return [page["key"] for page in report["bad"]]

    assert bad("--seed", "1") == bad("--seed", "1")
    assert len({tuple(bad("--seed", str(seed))) for seed in range(8)}) > 1


def test_incomplete_pages_are_told_and_are_no_fault(shelf: Shelf, cache: Run) -> None:
    shelf.plant(NS, SHAPE, KEYS[6], groups=[0])
    status, out, _ = cache("verify", "--namespace", "11")
    assert status == 0 and "incomplete 1 page," in out


def test_a_namespace_without_a_manifest_needs_a_shape(shelf: Shelf, cache: Run) -> None:
    status, _, err = cache("verify", "--namespace", "22")
    assert status == 2 and "has no manifest" in err and "--shape" in err
    fields = {name: getattr(SHAPE, name) for name in SHAPE.__slots__}
    status, out, _ = cache("verify", "--namespace", "22", "--shape", json.dumps(fields))
    assert status == 0 and "good       1 page" in out


def test_pages_of_a_later_format_are_not_judged(shelf: Shelf, cache: Run) -> None:
    describe(shelf, format_version=FORMAT_VERSION + 1)
    status, _, err = cache("verify", "--namespace", "11")
    assert status == 2 and f"format {FORMAT_VERSION + 1}; this version reads" in err


def test_evict_removes_what_was_not_used_for_so_long(shelf: Shelf, cache: Run) -> None:
    status, out, _ = cache("evict", "--older-than", "2.5h", "--namespace", "11")
    assert status == 0 and "removed 3 of 3 pages, 24.0 KiB; 2 pages, 16.0 KiB stay" in out
    assert keys_left(shelf) == {KEYS[3], KEYS[4]} and keys_left(shelf, OTHER)


def test_evict_makes_the_rest_fit_by_use_across_namespaces(shelf: Shelf, cache: Run) -> None:
    status, out, _ = cache("evict", "--to", "32KiB", "--json")
    assert status == 0
    assert json.loads(out) == {
        "dry_run": False,
        "chosen": 2,
        "chosen_bytes": 2 * SHAPE.slot_bytes,
        "removed": 2,
        "pages_left": 4,
        "bytes_left": 4 * SHAPE.slot_bytes,
    }
    assert keys_left(shelf) == set(KEYS[1:5]) and not keys_left(shelf, OTHER)


def test_a_dry_run_removes_nothing(shelf: Shelf, cache: Run) -> None:
    before = dict(shelf.objects)
    for flags in (["--older-than", "1h"], ["--to", "0B"], ["--all"]):
        status, out, _ = cache("evict", "--dry-run", *flags)
        assert status == 0 and "would remove" in out
    assert shelf.objects == before and shelf.records


def test_evict_of_all_takes_the_records_and_no_other_namespace(shelf: Shelf, cache: Run) -> None:
    shelf.plant(NS, SHAPE, KEYS[6], groups=[0])
    assert cache("evict", "--all", "--namespace", "11")[0] == 0
    assert not keys_left(shelf) and not shelf.records and keys_left(shelf, OTHER)


def test_evict_of_given_keys_removes_these(shelf: Shelf, cache: Run, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{KEYS[1].hex()}\n{KEYS[6].hex()}\n")
    flags = "--namespace", NS.hex(), "--keys", str(tmp_path / "keys")
    status, out, _ = cache("evict", *flags)
    assert status == 0 and "removed 1 of 2 pages" in out
    assert keys_left(shelf) == set(KEYS[:5]) - {KEYS[1]}


@pytest.mark.parametrize("flags", [(), ("--all", "--to", "1GiB"), ("--all", "--older-than", "1d")])
def test_evict_must_be_told_one_thing(shelf: Shelf, cache: Run, flags: tuple[str, ...]) -> None:
    status, _, err = cache("evict", *flags)
    assert status == 2 and "say which pages go" in err and len(keys_left(shelf)) == 5


def test_age_needs_a_store_that_tells_it(shelf: Shelf, cache: Run) -> None:
    shelf.used.clear()
    status, _, err = cache("evict", "--older-than", "1h")
    assert status == 1 and "does not tell when pages were used" in err
    status, out, err = cache("evict", "--to", "8KiB")
    assert status == 0 and "in the order of their keys" in err and "removed 5 of 5" in out


def test_a_store_that_cannot_list_is_cleared_by_namespace(shelf: Shelf, cache: Run) -> None:
    shelf.can_list = False
    assert cache("evict", "--all")[0] == 1 and len(keys_left(shelf)) == 5
    status, out, _ = cache("evict", "--all", "--namespace", NS.hex())
    assert status == 0 and "cleared 111111111111" in out
    assert not keys_left(shelf) and keys_left(shelf, OTHER)


def test_a_dry_run_on_a_store_that_cannot_list_removes_nothing(shelf: Shelf, cache: Run) -> None:
    shelf.can_list = False
    status, _, err = cache("evict", "--all", "--namespace", NS.hex(), "--dry-run")
    assert status == 1 and "cannot list: no --dry-run" in err
    assert len(keys_left(shelf)) == 5 and shelf.records


def test_a_copy_makes_the_directory_that_it_fills(
    shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, new = f"dynamic:{json.dumps(config('a'))}", tmp_path / "new"
    flags = "--dynamic-modules", MODULE, "--namespace", NS.hex()
    assert main(["cache", "copy", source, f"file:{new}", *flags]) == 0, capsys.readouterr().err
    assert sum(1 for _ in published(new)) == 5 * SHAPE.head_groups


def test_copy_moves_pages_and_manifest(shelf: Shelf, cache_copy: Run) -> None:
    status, out, _ = cache_copy("--namespace", "11")
    assert status == 0 and "5 of 5 pages copied, 40.0 KiB in" in out
    mine = {place: data for place, data in shelf.objects.items() if place[0] == NS}
    assert SHELVES["b"].objects == mine
    manifest = decode_manifest(SHELVES["b"].records[NS, RECORD], NS)
    assert manifest is not None and manifest.model == "smollm2"


def test_copy_again_skips_what_is_there(shelf: Shelf, cache_copy: Run) -> None:
    cache_copy("--namespace", "11")
    status, out, _ = cache_copy("--namespace", "11", "--json")
    [report] = json.loads(out)["namespaces"]
    assert status == 0 and (report["copied"], report["already_there"]) == (0, 5)


def test_copy_leaves_damaged_pages_out_with_status_1(shelf: Shelf, cache_copy: Run) -> None:
    shelf.flip(NS, KEYS[2])
    status, out, _ = cache_copy("--namespace", "11")
    assert status == 1 and "1 damaged, left out: payload 1" in out
    assert keys_left(SHELVES["b"]) == set(KEYS[:5]) - {KEYS[2]}


def test_copy_says_how_far_it_came_where_the_target_fails(shelf: Shelf, cache_copy: Run) -> None:
    SHELVES["b"].fails.add("set")
    status, out, err = cache_copy("--namespace", "11")
    assert status == 1 and "0 of 5 pages copied" in out and "set fails" in err


def test_copy_of_pages_of_unknown_shape_begins_nothing(shelf: Shelf, cache_copy: Run) -> None:
    status, _, err = cache_copy()
    assert status == 2 and "has no manifest" in err and not SHELVES["b"].objects


def test_copy_into_the_same_store_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "copy", "file:/a", "file:/a"]) == 2
    assert "the same store" in capsys.readouterr().err


def test_warm_needs_a_nearer_tier(shelf: Shelf, cache: Run) -> None:
    status, _, err = cache("warm")
    assert status == 2 and "has one tier" in err and "chain and zones" in err

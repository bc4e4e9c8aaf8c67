"""`kvloop cache` as its user sees it, on a store in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shelf_store import MODULE, SHELVES, Shelf, config

from kvloop.cli.main import build_parser, main
from kvloop.shared_cache.manifest import RECORD, Manifest, decode_manifest, encode_manifest
from kvloop.shared_cache.page_object import FORMAT_VERSION, PageShape

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=2, head_size=8, itemsize=2, head_groups=2)
NS, OTHER = b"\x11" * 32, b"\x22" * 32
KEYS = [bytes([i]) * 32 for i in range(8)]
TOOLS = ("stat", "ls", "verify", "evict", "warm", "copy")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """Five pages of a model, the first the oldest, and one page of another namespace."""
    shelf = SHELVES["a"]
    now = time.time()
    for i, key in enumerate(KEYS[:5]):
        writer = "decode" if i == 4 else "prefill"
        shelf.plant(NS, SHAPE, key, writer=writer, used_at=now - 3600 * (5 - i))
    describe(shelf, NS)
    shelf.plant(OTHER, SHAPE, KEYS[7], used_at=now - 86400 * 3)
    yield shelf
    SHELVES.clear()


def describe(shelf: Shelf, namespace: bytes, **fields: Any) -> None:
    manifest = Manifest(
        namespace=namespace.hex(), shape=SHAPE, model="smollm2", kv_dtype="bfloat16", **fields
    )
    shelf.records[namespace, RECORD] = encode_manifest(manifest)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A tool on store `a`: exit status, stdout, stderr."""

    def run(tool: str, *flags: str, store: str = "a") -> tuple[int, str, str]:
        where = ["--backend", "dynamic", "--config", json.dumps(config(store))]
        status = main(["cache", tool, *where, "--dynamic-modules", MODULE, *flags])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


@pytest.fixture
def copy(capsys: pytest.CaptureFixture[str]) -> Run:
    def copy(*flags: str) -> tuple[int, str, str]:
        stores = [f"dynamic:{json.dumps(config(name))}" for name in ("a", "b")]
        status = main(["cache", "copy", *stores, "--dynamic-modules", MODULE, *flags])
        out = capsys.readouterr()
        return status, out.out, out.err

    return copy


def keys_left(shelf: Shelf, namespace: bytes = NS) -> set[bytes]:
    return {key for ns, key, _ in shelf.objects if ns == namespace}


# --- flags ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_explains_itself(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(["cache", tool, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"kvloop cache {tool}" in out.split("example:")[1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "give a STORE such as file:/PATH"),
        (("file:/a", "--backend", "file"), "not both"),
        (("file:/a", "--config", "{}"), "not both"),
        (("--config", "{}"), "give a STORE"),
        (("--backend", "file"), "lacks the field 'root'"),
        (("--backend", "dynamic", "--config", json.dumps(config("a"))), "is not among the modules"),
    ],
)
def test_the_store_must_be_named_once(
    flags: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "stat", *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_store_that_fails_ends_with_status_1(shelf: Shelf, run: Run) -> None:
    shelf.fails.add("objects")
    status, _, err = run("stat")
    assert status == 1 and "kvloop cache stat: error: objects fails" in err


# --- stat ----------------------------------------------------------------------------------------


def test_stat_shows_each_namespace_and_their_sum(shelf: Shelf, run: Run) -> None:
    shelf.plant(NS, SHAPE, KEYS[6], groups=[0])
    status, out, _ = run("stat")
    assert status == 0
    mine, other, total = [line.split() for line in out.splitlines() if " KiB" in line]
    # Five whole pages of 8 KiB, half a page, and the record.
    assert mine[:6] == ["111111111111", "smollm2", "bfloat16", "x", "4", "5"]
    assert mine[6] == "1" and mine[-2:] == ["5h", "1h"]
    assert other[:4] == ["222222222222", "no", "manifest", "1"] and other[-1] == "3d"
    assert total[:2] == ["6", "1"]


def test_stat_as_json_has_every_number(shelf: Shelf, run: Run) -> None:
    shelf.num_gets = 3
    _, out, _ = run("stat", "--json", "--namespace", "11")
    [store] = json.loads(out)["stores"]
    [found] = store["namespaces"]
    assert found["namespace"] == NS.hex() and found["manifest"]["shape"]["head_groups"] == 2
    assert (found["pages"], found["incomplete_pages"], found["records"]) == (5, 0, 1)
    record = len(shelf.records[NS, RECORD])
    assert found["bytes"] == 5 * SHAPE.slot_bytes + record
    assert found["newest_use"] - found["oldest_use"] == pytest.approx(4 * 3600)
    assert store["stats"] == {"gets": 3.0} and store["tier"] is None


def test_stat_of_an_empty_store_says_so(run: Run) -> None:
    assert run("stat", store="empty")[:2] == (0, "dynamic: no pages\n")


def test_looking_leaves_no_trace(shelf: Shelf, run: Run) -> None:
    before = dict(shelf.objects), dict(shelf.records)
    for tool in ("stat", "ls", "verify"):
        run(tool, "--namespace", "11")
    assert (shelf.objects, shelf.records) == before


def test_stat_without_a_listing_says_what_else_there_is(shelf: Shelf, run: Run) -> None:
    shelf.can_list = False
    status, _, err = run("stat")
    assert status == 1 and "cannot list" in err and "--namespace HEX --keys FILE" in err


# --- ls ------------------------------------------------------------------------------------------


def test_ls_shows_the_last_used_pages_first(shelf: Shelf, run: Run) -> None:
    _, out, err = run("ls", "--namespace", "1", "--limit", "2")
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows] == [KEYS[4].hex(), KEYS[3].hex()]
    assert rows[0][1:] == ["8.0", "KiB", "2/2", "1h"]
    assert "3 pages more; --limit 0 shows all" in err


def test_ls_of_several_namespaces_has_headings(shelf: Shelf, run: Run) -> None:
    _, out, _ = run("ls", "--limit", "0")
    lines = out.splitlines()
    assert lines[0] == f"{NS.hex()} smollm2" and lines[6] == OTHER.hex() and len(lines) == 8


def test_ls_shows_which_pages_lack_groups(shelf: Shelf, run: Run) -> None:
    shelf.plant(NS, SHAPE, KEYS[6], groups=[1])
    _, out, _ = run("ls", "--json", "--limit", "0", "--namespace", "11")
    found = {page["key"]: page for page in map(json.loads, out.splitlines())}
    assert found[KEYS[6].hex()]["groups"] == [1] and found[KEYS[6].hex()]["used"] is None
    assert found[KEYS[0].hex()]["groups"] == [0, 1]
    assert found[KEYS[0].hex()]["bytes"] == SHAPE.slot_bytes


def test_what_ls_prints_quietly_is_a_file_of_keys(shelf: Shelf, run: Run, tmp_path: Path) -> None:
    _, out, _ = run("ls", "-q", "--namespace", "11", "--limit", "2")
    (tmp_path / "keys").write_text(out)
    flags = "--namespace", NS.hex(), "--keys", str(tmp_path / "keys")
    assert json.loads(run("verify", "--json", *flags)[1])["namespaces"][0]["good_by_writer"] == {
        "decode": 1,
        "prefill": 1,
    }


def test_given_keys_are_looked_up_where_the_store_cannot_list(
    shelf: Shelf, run: Run, tmp_path: Path
) -> None:
    shelf.can_list = False
    (tmp_path / "keys").write_text(f"{KEYS[1].hex()}\n{KEYS[6].hex()}\n")
    flags = "--namespace", NS.hex(), "--keys", str(tmp_path / "keys")
    _, out, _ = run("ls", "-q", *flags)
    assert out == KEYS[1].hex() + "\n"


def test_keys_need_a_whole_namespace(shelf: Shelf, run: Run, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEYS[1].hex())
    status, _, err = run("ls", "--namespace", "11", "--keys", str(tmp_path / "keys"))
    assert status == 2 and "--keys needs --namespace with all 64 digits" in err


def test_a_namespace_that_is_not_there_is_refused(shelf: Shelf, run: Run) -> None:
    for tool in ("stat", "ls", "verify"):
        status, _, err = run(tool, "--namespace", "33")
        assert status == 2 and "begins with 33" in err


def test_digits_of_several_namespaces_are_refused(shelf: Shelf, run: Run) -> None:
    shelf.plant(b"\x11" + bytes(31), SHAPE, KEYS[0])
    status, _, err = run("ls", "--namespace", "11")
    assert status == 2 and "several namespaces: 1100000000000000, 1111111111111111" in err


# --- verify --------------------------------------------------------------------------------------


def test_verify_of_good_pages_ends_with_status_0(shelf: Shelf, run: Run) -> None:
    status, out, _ = run("verify", "--namespace", "11")
    assert status == 0
    assert "good       5 pages, written by prefill 4, decode 1; 40.0 KiB read" in out
    assert "damaged    0 pages\n" in out


def test_verify_names_damaged_pages_and_ends_with_status_1(shelf: Shelf, run: Run) -> None:
    shelf.flip(NS, KEYS[2], group=1)
    shelf.objects[NS, KEYS[3], 0] = b"short"
    status, out, _ = run("verify", "--namespace", "11")
    assert status == 1 and "damaged    2 pages: length 1, payload 1" in out
    assert f"payload    {KEYS[2].hex()}" in out and f"length     {KEYS[3].hex()}" in out
    assert len(keys_left(shelf)) == 5


def test_verify_removes_damaged_pages_where_it_is_told_to(shelf: Shelf, run: Run) -> None:
    shelf.flip(NS, KEYS[2])
    status, out, _ = run("verify", "--namespace", "11", "--delete")
    assert status == 1 and "removed    1 page" in out
    assert keys_left(shelf) == set(KEYS[:5]) - {KEYS[2]}
    assert run("verify", "--namespace", "11")[0] == 0


def test_verify_takes_a_sample_that_can_be_drawn_again(shelf: Shelf, run: Run) -> None:
    for key in KEYS[:4]:
        shelf.flip(NS, key)

    def bad(*flags: str) -> list[str]:
        out = run("verify", "--json", "--namespace", "11", "--sample", "2", *flags)[1]
        [report] = json.loads(out)["namespaces"]
        assert sum(report["faults"].values()) + sum(report["good_by_writer"].values()) == 2
        return [page["key"] for page in report["bad"]]

    assert bad("--seed", "1") == bad("--seed", "1")
    assert len({tuple(bad("--seed", str(seed))) for seed in range(8)}) > 1


def test_incomplete_pages_are_told_and_are_no_fault(shelf: Shelf, run: Run) -> None:
    shelf.plant(NS, SHAPE, KEYS[6], groups=[0])
    status, out, _ = run("verify", "--namespace", "11")
    assert status == 0 and "incomplete 1 page," in out


def test_a_namespace_without_a_manifest_needs_a_shape(shelf: Shelf, run: Run) -> None:
    status, _, err = run("verify", "--namespace", "22")
    assert status == 2 and "has no manifest" in err and "--shape" in err
    fields = {name: getattr(SHAPE, name) for name in SHAPE.__slots__}
    status, out, _ = run("verify", "--namespace", "22", "--shape", json.dumps(fields))
    assert status == 0 and "good       1 page" in out


def test_pages_of_a_later_format_are_not_judged(shelf: Shelf, run: Run) -> None:
    describe(shelf, NS, format_version=FORMAT_VERSION + 1)
    status, _, err = run("verify", "--namespace", "11")
    assert status == 2 and f"format {FORMAT_VERSION + 1}; this version reads" in err


# --- evict ---------------------------------------------------------------------------------------


def test_evict_removes_what_was_not_used_for_so_long(shelf: Shelf, run: Run) -> None:
    status, out, _ = run("evict", "--older-than", "2.5h", "--namespace", "11")
    assert status == 0 and "removed 3 of 3 pages, 24.0 KiB; 2 pages, 16.0 KiB stay" in out
    assert keys_left(shelf) == {KEYS[3], KEYS[4]} and keys_left(shelf, OTHER)


def test_evict_makes_the_rest_fit_by_use_across_namespaces(shelf: Shelf, run: Run) -> None:
    status, out, _ = run("evict", "--to", "32KiB", "--json")
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


def test_a_dry_run_removes_nothing(shelf: Shelf, run: Run) -> None:
    before = dict(shelf.objects)
    for flags in (["--older-than", "1h"], ["--to", "0B"], ["--all"]):
        status, out, _ = run("evict", "--dry-run", *flags)
        assert status == 0 and "would remove" in out
    assert shelf.objects == before and shelf.records


def test_evict_of_all_takes_the_records_too_and_no_other_namespace(shelf: Shelf, run: Run) -> None:
    shelf.plant(NS, SHAPE, KEYS[6], groups=[0])
    assert run("evict", "--all", "--namespace", "11")[0] == 0
    assert not keys_left(shelf) and not shelf.records and keys_left(shelf, OTHER)


def test_evict_of_given_keys_removes_these(shelf: Shelf, run: Run, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{KEYS[1].hex()}\n{KEYS[6].hex()}\n")
    flags = "--namespace", NS.hex(), "--keys", str(tmp_path / "keys")
    status, out, _ = run("evict", *flags)
    assert status == 0 and "removed 1 of 2 pages" in out
    assert keys_left(shelf) == set(KEYS[:5]) - {KEYS[1]}


@pytest.mark.parametrize("flags", [(), ("--all", "--to", "1GiB"), ("--all", "--older-than", "1d")])
def test_evict_must_be_told_one_thing(shelf: Shelf, run: Run, flags: tuple[str, ...]) -> None:
    status, _, err = run("evict", *flags)
    assert status == 2 and "say which pages go" in err and len(keys_left(shelf)) == 5


def test_age_needs_a_store_that_tells_it(shelf: Shelf, run: Run) -> None:
    shelf.used.clear()
    status, _, err = run("evict", "--older-than", "1h")
    assert status == 1 and "does not tell when pages were used" in err
    status, out, err = run("evict", "--to", "8KiB")
    assert status == 0 and "in the order of their keys" in err and "removed 5 of 5" in out


def test_a_store_that_cannot_list_is_cleared_by_namespace(shelf: Shelf, run: Run) -> None:
    shelf.can_list = False
    assert run("evict", "--all")[0] == 1 and len(keys_left(shelf)) == 5
    status, out, _ = run("evict", "--all", "--namespace", NS.hex())
    assert status == 0 and "cleared 111111111111" in out
    assert not keys_left(shelf) and keys_left(shelf, OTHER)


# --- copy and warm -------------------------------------------------------------------------------


def test_copy_moves_pages_and_manifest(shelf: Shelf, copy: Run) -> None:
    status, out, _ = copy("--namespace", "11")
    assert status == 0 and "5 of 5 pages copied, 40.0 KiB in" in out
    mine = {place: data for place, data in shelf.objects.items() if place[0] == NS}
    assert SHELVES["b"].objects == mine
    manifest = decode_manifest(SHELVES["b"].records[NS, RECORD], NS)
    assert manifest is not None and manifest.model == "smollm2"


def test_copy_again_skips_what_is_there(shelf: Shelf, copy: Run) -> None:
    copy("--namespace", "11")
    status, out, _ = copy("--namespace", "11", "--json")
    [report] = json.loads(out)["namespaces"]
    assert status == 0 and (report["copied"], report["already_there"]) == (0, 5)


def test_copy_leaves_damaged_pages_out_and_ends_with_status_1(shelf: Shelf, copy: Run) -> None:
    shelf.flip(NS, KEYS[2])
    status, out, _ = copy("--namespace", "11")
    assert status == 1 and "1 damaged, left out: payload 1" in out
    assert keys_left(SHELVES["b"]) == set(KEYS[:5]) - {KEYS[2]}


def test_copy_says_how_far_it_came_where_the_target_fails(shelf: Shelf, copy: Run) -> None:
    SHELVES["b"].fails.add("set")
    status, out, err = copy("--namespace", "11")
    assert status == 1 and "0 of 5 pages copied" in out and "set fails" in err


def test_copy_of_pages_of_unknown_shape_begins_nothing(shelf: Shelf, copy: Run) -> None:
    status, _, err = copy()
    assert status == 2 and "has no manifest" in err and not SHELVES["b"].objects


def test_copy_into_the_same_store_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "copy", "file:/a", "file:/a"]) == 2
    assert "the same store" in capsys.readouterr().err


def test_warm_needs_a_nearer_tier(shelf: Shelf, run: Run) -> None:
    status, _, err = run("warm")
    assert status == 2 and "has one tier" in err and "chain and zones" in err

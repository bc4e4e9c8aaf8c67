"""`kvloop cache`: its flags, and what `stat` and `ls` show."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from shelf_store import KEYS, NS, OTHER, SHAPE, Shelf, config, describe

from kvloop.cli.main import build_parser, main
from kvloop.shared_cache.manifest import RECORD

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("tool", ("stat", "ls", "verify", "evict", "warm", "copy"))
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


def test_a_store_that_fails_ends_with_status_1(shelf: Shelf, cache: Run) -> None:
    shelf.fails.add("objects")
    status, _, err = cache("stat")
    assert status == 1 and "kvloop cache stat: error: objects fails" in err


def test_stat_shows_each_namespace_and_their_sum(shelf: Shelf, cache: Run) -> None:
    shelf.plant(NS, SHAPE, KEYS[6], groups=[0])
    status, out, _ = cache("stat")
    assert status == 0
    mine, other, total = [line.split() for line in out.splitlines() if " KiB" in line]
    # Five whole pages of 8 KiB, half a page, and the record.
    assert mine[:6] == ["111111111111", "smollm2,", "bfloat16", "x", "4", "5"]
    assert (mine[6], mine[-1]) == ("1", "1h-5h")
    assert other[:5] == ["222222222222", "?", "(no", "manifest)", "1"] and other[-1] == "3d"
    assert total[:2] == ["6", "1"]


@pytest.mark.parametrize("width", [80, 200])
def test_no_number_is_cut_off_on_a_narrow_screen(
    shelf: Shelf, cache: Run, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("kvloop.cli.cache.stat.complete_pages", lambda *_: range(1_234_567))
    describe(shelf, model="Meta-Llama-3.1-70B-Instruct")
    shelf.plant(NS, SHAPE, KEYS[6], groups=[0])
    _, out, _ = cache("stat")
    assert "1,234,567" in out and "111111111111" in out and "…" not in out
    assert all(len(line) <= width for line in out.splitlines())


def test_stat_as_json_has_every_number(shelf: Shelf, cache: Run) -> None:
    shelf.num_gets = 3
    _, out, _ = cache("stat", "--json", "--namespace", "11")
    [store] = json.loads(out)["stores"]
    [found] = store["namespaces"]
    assert found["namespace"] == NS.hex() and found["manifest"]["shape"]["head_groups"] == 2
    assert (found["pages"], found["incomplete_pages"], found["records"]) == (5, 0, 1)
    record = len(shelf.records[NS, RECORD])
    assert found["bytes"] == 5 * SHAPE.slot_bytes + record
    assert found["newest_use"] - found["oldest_use"] == pytest.approx(4 * 3600)
    assert store["stats"] == {"gets": 3.0} and store["tier"] is None


def test_stat_of_an_empty_store_says_so(cache: Run) -> None:
    assert cache("stat", store="empty")[:2] == (0, "dynamic: no pages\n")


def test_looking_leaves_no_trace(shelf: Shelf, cache: Run) -> None:
    before = dict(shelf.objects), dict(shelf.records)
    for tool in ("stat", "ls", "verify"):
        cache(tool, "--namespace", "11")
    assert (shelf.objects, shelf.records) == before


def test_stat_without_a_listing_says_what_else_there_is(shelf: Shelf, cache: Run) -> None:
    shelf.can_list = False
    status, _, err = cache("stat")
    assert status == 1 and "cannot list" in err and "--namespace HEX --keys FILE" in err


def test_ls_shows_the_last_used_pages_first(shelf: Shelf, cache: Run) -> None:
    _, out, err = cache("ls", "--namespace", "1", "--limit", "2")
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows] == [KEYS[4].hex(), KEYS[3].hex()]
    assert rows[0][1:] == ["8.0", "KiB", "2/2", "1h"]
    assert "3 pages more; --limit 0 shows all" in err


def test_ls_of_several_namespaces_has_headings(shelf: Shelf, cache: Run) -> None:
    _, out, _ = cache("ls", "--limit", "0")
    lines = out.splitlines()
    assert lines[0] == f"{NS.hex()} smollm2" and lines[6] == OTHER.hex() and len(lines) == 8


def test_ls_shows_which_pages_lack_groups(shelf: Shelf, cache: Run) -> None:
    shelf.plant(NS, SHAPE, KEYS[6], groups=[1])
    _, out, _ = cache("ls", "--json", "--limit", "0", "--namespace", "11")
    found = {page["key"]: page for page in map(json.loads, out.splitlines())}
    assert found[KEYS[6].hex()]["groups"] == [1] and found[KEYS[6].hex()]["used"] is None
    assert found[KEYS[0].hex()]["groups"] == [0, 1]
    assert found[KEYS[0].hex()]["bytes"] == SHAPE.slot_bytes


def test_what_ls_prints_quietly_is_a_file_of_keys(shelf: Shelf, cache: Run, tmp_path: Path) -> None:
    _, out, _ = cache("ls", "-q", "--namespace", "11", "--limit", "2")
    (tmp_path / "keys").write_text(out)
    flags = "--namespace", NS.hex(), "--keys", str(tmp_path / "keys")
    assert json.loads(cache("verify", "--json", *flags)[1])["namespaces"][0]["good_by_writer"] == {
        "decode": 1,
        "prefill": 1,
    }


def test_given_keys_are_looked_up_where_the_store_cannot_list(
    shelf: Shelf, cache: Run, tmp_path: Path
) -> None:
    shelf.can_list = False
    (tmp_path / "keys").write_text(f"{KEYS[1].hex()}\n{KEYS[6].hex()}\n")
    flags = "--namespace", NS.hex(), "--keys", str(tmp_path / "keys")
    _, out, _ = cache("ls", "-q", *flags)
    assert out == KEYS[1].hex() + "\n"


def test_keys_need_a_whole_namespace(shelf: Shelf, cache: Run, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEYS[1].hex())
    status, _, err = cache("ls", "--namespace", "11", "--keys", str(tmp_path / "keys"))
    assert status == 2 and "--keys needs --namespace with all 64 digits" in err


def test_a_namespace_that_is_not_there_is_refused(shelf: Shelf, cache: Run) -> None:
    for tool in ("stat", "ls", "verify"):
        status, _, err = cache(tool, "--namespace", "33")
        assert status == 2 and "begins with 33" in err


def test_digits_of_several_namespaces_are_refused(shelf: Shelf, cache: Run) -> None:
    shelf.plant(b"\x11" + bytes(31), SHAPE, KEYS[0])
    status, _, err = cache("ls", "--namespace", "11")
    assert status == 2 and "several namespaces: 1100000000000000, 1111111111111111" in err

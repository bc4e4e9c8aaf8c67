"""Reports as files: written at once, read with words for what is wrong."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from bench_reports import make_report

from kvloop.benchmark.outlets.files import read_report, write_json, write_page
from kvloop.benchmark.results.document import Report
from kvloop.shared_cache.errors import ConfigError

REPORT = make_report(1, conversations=3, turns=2, fail_share=0.2)


def test_what_was_written_is_read_back_equal(tmp_path: Path) -> None:
    write_json(REPORT, tmp_path / "r.json")
    assert read_report(tmp_path / "r.json") == REPORT


def test_without_samples_all_sums_are_still_there(tmp_path: Path) -> None:
    write_json(REPORT, tmp_path / "r.json", with_samples=False)
    read = read_report(tmp_path / "r.json")
    assert read.samples == () and read.arms == REPORT.arms and read.failures == REPORT.failures


def test_a_name_that_is_no_unicode_costs_no_report(tmp_path: Path) -> None:
    server = replace(REPORT.server, model="model \ud800")
    odd = replace(REPORT, command="--trace /tmp/\udcff.jsonl", server=server)
    write_json(odd, tmp_path / "r.json")
    read = read_report(tmp_path / "r.json")
    assert (read.command, read.server.model) == ("--trace /tmp/?.jsonl", "model ?")
    assert read.arms == REPORT.arms and read.samples == REPORT.samples


def test_a_file_is_replaced_at_once_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text("old")
    before = file.stat().st_ino
    write_json(REPORT, file)
    assert file.stat().st_ino != before
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "r.json"
    file.write_text("old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(REPORT, file)
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["r.json"]


def test_a_pipe_is_written_itself(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_page("<p>small</p>", pipe)
        assert os.read(reader, 100) == b"<p>small</p>"
        assert stat.S_ISFIFO(pipe.stat().st_mode)
    finally:
        os.close(reader)


def test_a_page_is_written_in_utf_8(tmp_path: Path) -> None:
    write_page("<p>2 ≤ 3</p>", tmp_path / "r.html")
    assert (tmp_path / "r.html").read_bytes() == "<p>2 ≤ 3</p>".encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "is no report of `kvloop bench`: it has no `schema`"),
        ('{"a": 1}', "is no report of `kvloop bench`: it has no `schema`"),
        (
            '{"schema": "kvloop.bench.multi-turn/1"}',
            "its schema is 'kvloop.bench.multi-turn/1', this kvloop reads 'kvloop.bench/2'",
        ),
        ('{"schema": "kvloop.bench/2"}', "is no report of `kvloop bench`: Object missing"),
    ],
)
def test_what_is_no_report_is_refused_with_words(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(ConfigError) as told:
        read_report(tmp_path / "r.json")
    assert str(told.value).startswith(f"{tmp_path}/r.json: ") and words in str(told.value)


def test_a_wrong_field_is_named_with_its_path(tmp_path: Path) -> None:
    write_json(REPORT, tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text())
    document["samples"][1]["ttft_s"] = "soon"
    (tmp_path / "r.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"samples\[1\]\.ttft_s"):
        read_report(tmp_path / "r.json")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: cannot be read: No such file"):
        read_report(tmp_path / "none.json")


def test_a_report_without_an_answer_is_read_back_too(tmp_path: Path) -> None:
    empty: Report = make_report(1, conversations=3, turns=2, fail_share=1.0)
    write_json(empty, tmp_path / "r.json")
    assert read_report(tmp_path / "r.json") == empty

"""A trace's lines: the good ones in time, the others counted and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_traces import line_of, request, write_lines

from kvloop.benchmark.workloads import lines as lines_of_files
from kvloop.benchmark.workloads.trace_lines import read_timed_trace
from kvloop.shared_cache.errors import ConfigError

GOOD = line_of(request(5, 0, 1))
BROKEN = {
    "no JSON": ("{", "truncated"),
    "no time": ('{"input_length": 5, "output_length": 1, "hash_ids": [9]}', "`timestamp`"),
    "no answer": ('{"timestamp": 1, "input_length": 5, "hash_ids": [9]}', "`output_length`"),
    "no ids": ('{"timestamp": 1, "input_length": 5, "output_length": 1}', "`hash_ids`"),
    "lengths": (
        '{"timestamp": 1, "input_length": 600, "output_length": 1, "hash_ids": [9]}',
        "has 1 ids, and 600 tokens are 2 pages of 512",
    ),
    "a time below 0": (line_of(request(-1, 9)), r">= 0.*timestamp"),
    "an answer below 0": (line_of(request(1, 9, output=-1)), r">= 0.*output_length"),
    "an id below 0": (line_of(request(1, -9)), r">= 0.*hash_ids"),
    "an id that is too large": (line_of(request(1, 10**23)), r"<= 9007199254740992.*hash_ids"),
    "a length below 0": (
        '{"timestamp": 1, "input_length": -5, "output_length": 1, "hash_ids": [9]}',
        r">= 0.*input_length",
    ),
    "an id after two": (line_of(request(1, 7, 1)), "id 1 follows 0 and also 7"),
    "an id twice": (line_of(request(1, 9, 9)), "id 9 follows None and also 9"),
    "bytes that are no text": ('{"\udcff": 1}', "line 2"),
}


def write(directory: Path, *lines: str) -> Path:
    path = directory / "trace.jsonl"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
    return path


@pytest.mark.parametrize(("line", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_line_is_named_and_left_out_or_ends_a_strict_reading(
    tmp_path: Path, line: str, words: str
) -> None:
    path = write(tmp_path, GOOD, line, GOOD)
    trace = read_timed_trace(path)
    assert trace.requests == (request(5, 0, 1),) * 2
    assert trace.problems.num == 1
    (warning,) = trace.problems.warnings
    assert warning.startswith("trace.jsonl: 1 left out: line 2: ")
    with pytest.raises(ConfigError, match=words):
        read_timed_trace(path, is_strict=True)


def test_the_first_few_broken_lines_are_named_and_all_are_counted(tmp_path: Path) -> None:
    trace = read_timed_trace(write(tmp_path, *["{"] * 9, GOOD, *["["] * 3))
    (warning,) = trace.problems.warnings
    assert "12 left out: line 1: " in warning and "line 5: " in warning
    assert "line 6: " not in warning and warning.endswith("; and 7 more")


def test_a_line_that_contradicts_leaves_nothing_behind(tmp_path: Path) -> None:
    contradicts = line_of(request(1, 20, 21, 1))
    trace = read_timed_trace(write(tmp_path, GOOD, contradicts, line_of(request(2, 30, 21))))
    assert trace.problems.num == 1
    assert dict(trace.parents) == {0: None, 1: 0, 30: None, 21: 30}


def test_requests_come_in_time_order_and_those_of_one_moment_as_they_stand(tmp_path: Path) -> None:
    stood = [request(9, 1), request(3, 2), request(3, 3), request(0, 4)]
    trace = read_timed_trace(write(tmp_path, *map(line_of, stood)))
    assert [one.pages for one in trace.requests] == [(4,), (2,), (3,), (1,)]


def test_blank_lines_are_no_broken_lines_and_are_counted_as_lines(tmp_path: Path) -> None:
    trace = read_timed_trace(write(tmp_path, "", GOOD, "  ", "{"))
    assert "line 4: " in trace.problems.warnings[0] and trace.problems.num == 1
    assert not read_timed_trace(write(tmp_path, GOOD)).problems.warnings


def test_a_file_without_a_good_line_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--trace .* has no good line; line 1: .*; line 2"):
        read_timed_trace(write(tmp_path, "{", "{"))
    with pytest.raises(ConfigError, match="no good line; it is empty"):
        read_timed_trace(write(tmp_path))
    with pytest.raises(ConfigError, match="nowhere: No such file"):
        read_timed_trace(tmp_path / "nowhere")


def test_a_file_without_line_ends_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_of_files, "LONGEST_LINE", 64)
    with pytest.raises(ConfigError, match="line 1 has 64 bytes or more"):
        read_timed_trace(write_lines(tmp_path / "long", ["x" * 100]))


def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    line = '{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": [9], "n": %s}'
    problems = read_timed_trace(write(tmp_path, GOOD, line % ("[" * 5000))).problems
    assert problems.num == 1 and len(problems.warnings[0]) < 300

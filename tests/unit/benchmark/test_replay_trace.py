"""Reading a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvloop.benchmark.replay.__main__ import main
from kvloop.benchmark.replay.run import fit_sizes
from kvloop.benchmark.replay.trace import Keys, Request, read_trace, working_set
from kvloop.shared_cache.errors import ConfigError

GOOD = '{"timestamp": 0, "input_length": 700, "output_length": 5, "hash_ids": [0, 1]}'


def write(directory: Path, *lines: str) -> Path:
    path = directory / "trace.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_line_is_pages_and_tokens_the_last_page_perhaps_short(tmp_path: Path) -> None:
    (request,) = read_trace(write(tmp_path, GOOD))
    assert request == Request(pages=(0, 1), num_tokens=700, output_length=5)
    assert (request.tokens(0, 1), request.tokens(1, 2), request.tokens(0, 2)) == (512, 188, 700)


def test_requests_can_be_left_out_and_counted_off(tmp_path: Path) -> None:
    lines = [f'{{"input_length": {n}, "hash_ids": [0]}}' for n in range(1, 6)]
    chosen = read_trace(write(tmp_path, *lines), skip=1, limit=2, priority=lambda n: n % 2)
    assert [(r.num_tokens, r.priority) for r in chosen] == [(2, 1), (3, 0)]
    assert working_set(chosen) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: "),
        ('{"input_length": 5}', r"line 2: .*`hash_ids`"),
        ('{"input_length": 5, "hash_ids": ["a"]}', r"line 2: .*`\$.hash_ids"),
        ('{"input_length": 600, "hash_ids": [1]}', "has 1 ids, and 600 tokens are 2 pages of 512"),
        ('{"input_length": 0, "hash_ids": []}', "line 2: 'hash_ids' has 0 ids"),
        ('{"input_length": 600, "hash_ids": [2, 1]}', "id 1 follows 0 and also 2"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_trace(write(tmp_path, GOOD, line))


def test_a_file_that_is_not_there_or_holds_too_few_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--trace .*nowhere: No such file"):
        read_trace(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="has no requests from line 8 on"):
        read_trace(write(tmp_path, GOOD), skip=7)


def test_keys_are_equal_where_pages_and_all_before_them_are() -> None:
    keys = Keys()
    first, second = keys.of([0, 1, 2]), keys.of([0, 1, 3])
    assert first[:2] == second[:2] and first[2] != second[2]
    assert {len(key) for key in first} == {32}
    assert keys.page_of[first[2]] == 2


@pytest.mark.parametrize(("shares", "flag"), [((0.1, 0.9), "--l1"), ((0.5, 0.6), "--l2")])
def test_tiers_too_small_for_one_request_are_refused(
    shares: tuple[float, float], flag: str
) -> None:
    request = Request(pages=tuple(range(10)), num_tokens=5120)
    others = [Request(pages=(page,), num_tokens=512) for page in range(10, 30)]
    with pytest.raises(ConfigError, match=f"{flag}-share: .* pages are too few"):
        fit_sizes([request, *others], *shares)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--l1-share", "0"), "--l1-share: must be above 0"),
        (("--limit", "-1"), "--limit"),
        (("--policy", "random"), "--policy"),
        ((), "--trace"),
    ],
)
def test_a_wrong_flag_is_named(
    flags: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = ("--trace", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as stopped:
        main([*trace, *flags])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err

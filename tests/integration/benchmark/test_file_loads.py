"""Traces and chats of files, from the command line to a server and back to the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_traces import write_lines
from stub_process import RunningStub, running_stub
from whole_trace import EXCERPT

from kvloop.benchmark.results.document import Report
from kvloop.cli.main import main

pytestmark = pytest.mark.integration
PAGE = 16


@pytest.fixture
def stub() -> Iterator[RunningStub]:
    with running_stub("--context", "2048") as running:
        yield running


def run(stub: RunningStub, directory: Path, load: str, *flags: str) -> tuple[int, Report]:
    """The command's exit status and what it wrote."""
    path = directory / "report.json"
    common = ("--json", str(path), "--warmup", "0", "--cache-salt", "s", "--timeout-s", "60")
    status = main(["bench", load, stub.url, *flags, *common])
    return status, msgspec.json.decode(path.read_bytes(), type=Report)


def prompts_of(stub: RunningStub, field: str) -> list[Any]:
    return [body[field] for body in stub.seen()["requests"]]


def count_pages(prompts: list[list[int]]) -> int:
    """Tokens of full pages that a cache of all pages before had; a prompt's last token is new."""
    seen: set[tuple[int, ...]] = set()
    cached = 0
    for prompt in prompts:
        ends = range(PAGE, len(prompt), PAGE)
        cached += PAGE * sum(tuple(prompt[:end]) in seen for end in ends)
        seen.update(tuple(prompt[:end]) for end in ends)
    return cached


def test_a_trace_is_sent_as_its_ids_say_and_a_server_finds_what_the_ceiling_allows(
    stub: RunningStub, tmp_path: Path
) -> None:
    flags = ("--trace", str(EXCERPT), "--limit", "60", "--time-scale", "1e9", "--clients", "1")
    status, report = run(stub, tmp_path, "trace", *flags, "--arms", "on", "--block-tokens", "32")
    assert status == 0 and len(report.samples) == 60
    prompts = prompts_of(stub, "prompt")
    cached = sum(sample.cached_tokens or 0 for sample in report.samples)
    assert report.ceiling is not None
    assert report.ceiling.tokens == sum(map(len, prompts))
    assert cached == count_pages(prompts)
    assert report.ceiling.reusable_tokens - PAGE * 60 <= cached <= report.ceiling.reusable_tokens
    assert report.ceiling.rate > 0.35
    assert report.workload["ids_seen_before_share"] >= 0.35


def test_what_the_turn_before_left_behind_is_what_both_prompts_begin_with(
    stub: RunningStub, tmp_path: Path
) -> None:
    flags = ("--trace", str(EXCERPT), "--limit", "30", "--time-scale", "1e9", "--clients", "1")
    _, report = run(stub, tmp_path, "trace", *flags, "--arms", "on", "--block-tokens", "32")
    sent = sorted(report.samples, key=lambda sample: sample.sent_at)
    pairs = list(pairwise(zip(sent, prompts_of(stub, "prompt"), strict=True)))
    later = [pair for pair in pairs if pair[1][0].turn > 1]
    assert later
    for (_, before), (sample, prompt) in later:
        shared = next(n for n in range(len(before), -1, -1) if prompt[:n] == before[:n])
        assert sample.reusable_tokens == shared >= 32


def test_lengths_fit_what_the_server_says_of_its_model(stub: RunningStub, tmp_path: Path) -> None:
    flags = ("--trace", str(EXCERPT), "--limit", "30", "--time-scale", "1e9", "--arms", "on")
    _, report = run(stub, tmp_path, "trace", *flags)
    requests = stub.seen()["requests"]
    longest = max(len(body["prompt"]) + body["max_tokens"] for body in requests)
    assert 1900 < longest <= 2048
    assert report.workload["context"] == 2048 and report.workload["longest_with_answer"] == longest


def test_turns_of_one_conversation_wait_for_each_other_and_others_do_not(tmp_path: Path) -> None:
    flags = ("--trace", str(EXCERPT), "--limit", "30", "--time-scale", "1e9", "--arms", "on")
    with running_stub("--context", "2048", "--first-ms", "500") as stub:
        _, report = run(stub, tmp_path, "trace", *flags, "--max-output", "1")
        most = stub.seen()["most_streams"]
    assert most > 4, "all at once, unlike other loads, whose --clients is 4"
    by_conversation: dict[int, list[Any]] = {}
    for sample in report.samples:
        by_conversation.setdefault(sample.conversation, []).append(sample)
    assert any(len(samples) > 1 for samples in by_conversation.values())
    for samples in by_conversation.values():
        samples.sort(key=lambda sample: sample.turn)
        for earlier, later in pairwise(samples):
            assert later.sent_at >= earlier.ended_at


def test_a_request_that_fails_is_counted_and_its_conversation_goes_on(tmp_path: Path) -> None:
    flags = ("--trace", str(EXCERPT), "--limit", "30", "--time-scale", "1e9", "--clients", "1")
    with running_stub("--context", "2048", "--refuse-first", "1") as stub:
        status, report = run(stub, tmp_path, "trace", *flags, "--arms", "on")
    (failure,) = report.failures
    assert status == 1 and (failure.kind, failure.turn) == ("http_429", 1)
    assert len(report.samples) == 29
    after = next(s for s in report.samples if s.conversation == failure.conversation)
    assert (after.turn, after.reusable_tokens) == (2, 0)


def test_a_broken_line_is_named_in_the_report_and_the_rest_is_sent(
    stub: RunningStub, tmp_path: Path
) -> None:
    lines = EXCERPT.read_text().splitlines()[:5]
    path = write_lines(tmp_path / "trace.jsonl", [*lines[:2], '{"timestamp": 5}', *lines[2:]])
    flags = ("--time-scale", "1e9", "--arms", "on")
    status, report = run(stub, tmp_path, "trace", "--trace", str(path), *flags)
    assert status == 0 and len(report.samples) == 5
    assert any("1 left out: line 3: " in warning for warning in report.warnings)
    assert main(["bench", "trace", stub.url, "--trace", str(path), "--strict"]) == 2


def test_recorded_answers_stand_in_the_history_instead_of_the_servers(
    stub: RunningStub, tmp_path: Path
) -> None:
    chat = {
        "conversations": [
            {"from": "human", "value": "hello"},
            {"from": "gpt", "value": "as recorded"},
            {"from": "human", "value": "go on"},
        ]
    }
    path = write_lines(tmp_path / "chats.jsonl", [json.dumps(chat)])
    flags = ("--dataset", str(path), "--arms", "on", "--output-length", "3")
    for answers in ("server", "recorded"):
        status, _ = run(stub, tmp_path, "dataset", *flags, "--answers", answers)
        assert status == 0
    _, by_server, _, as_recorded = prompts_of(stub, "messages")
    assert [one["role"] for one in by_server] == ["user", "assistant", "user"]
    assert by_server[1]["content"] == " t0 t1 t2"
    assert as_recorded[1]["content"] == "as recorded"
    assert [body["max_tokens"] for body in stub.seen()["requests"]] == [3] * 4

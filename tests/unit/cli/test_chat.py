"""Taking in a streamed answer, and showing it."""

import io

import pytest
from rich.console import Console

from kvloop.cli.up.chat import ChatFailed, Turn, add_event
from kvloop.cli.up.pages import PageCount
from kvloop.cli.up.proof import drift
from kvloop.cli.up.table import pages_table, turns_table
from kvloop.cli.up.usage import Usage, parse_usage

USAGE = {
    "prompt_tokens": 275,
    "completion_tokens": 40,
    "kvloop": {
        "computed": 35,
        "device": 0,
        "host": 0,
        "storage": 240,
        "transfer_skipped": 0,
        "by_writer": {"prefill": 80, "decode": 160},
        "fallback": None,
    },
}


def test_a_turn_grows_by_its_events() -> None:
    turn = Turn()
    add_event(
        turn, {"choices": [{"prompt_token_ids": [1, 2], "delta": {"role": "assistant"}}]}, 0.1
    )
    add_event(turn, {"choices": [{"delta": {"content": "a"}, "token_ids": [3]}]}, 0.5)
    add_event(turn, {"choices": [{"delta": {"content": "b"}, "token_ids": [4]}]}, 0.6)
    add_event(turn, {"choices": [], "usage": USAGE}, 0.7)
    assert (turn.text, turn.prompt_ids, turn.answer_ids) == ("ab", [1, 2], [3, 4])
    assert turn.ttft_s == 0.5
    assert turn.usage.by_decode == 160


def test_an_error_in_the_stream_is_raised_with_its_message() -> None:
    with pytest.raises(ChatFailed, match="prefill died"):
        add_event(Turn(), {"error": {"message": "prefill died"}}, 0.1)


def test_usage_without_the_kvloop_block_counts_nothing_as_reused() -> None:
    assert parse_usage({"prompt_tokens": 5, "completion_tokens": 1}).storage == 0


def test_the_rate_leaves_the_first_token_out() -> None:
    turn = Turn(usage=Usage(completion_tokens=11), ttft_s=1.0, total_s=3.0)
    assert turn.tokens_per_s == 5.0


def test_drift_says_how_far_the_history_was_repeated() -> None:
    first, second = Turn(prompt_ids=[1, 2], answer_ids=[3]), Turn(prompt_ids=[1, 2, 9, 9])
    assert drift(first, second) == "turn 2's prompt begins with 2 of turn 1's 3 tokens"


def test_tables_show_every_count_within_80_columns() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80)
    turn = Turn(usage=parse_usage(USAGE), ttft_s=0.698, total_s=2.0)
    console.print(turns_table([turn, turn]))
    console.print(pages_table(PageCount(prefill=5, decode=10), PageCount(prefill=5, decode=9), 16))
    text = out.getvalue()
    assert all(word in text for word in ("275", "35", "240", "80", "160", "698 ms", "missing"))
    assert "…" not in text

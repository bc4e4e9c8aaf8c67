"""The decode scheduler and a hand-off that goes wrong; the sender is this test's own hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from decode_engine import LAYERS, PAGE, Decode, save_config

from kvloop.engine.messages import Abort, AskPrefill, AttemptQuiet, GiveUp, HandOffBroken
from kvloop.engine.page_blocks import layer_checksum
from kvloop.shared_cache.wire import Finished, Refused, Started

AB = ("http://a", "http://b")


@pytest.fixture
def decode(tmp_path: Path) -> Iterator[Decode]:
    decode = Decode(save_config(tmp_path), num_pages=24, with_transfer=False)
    yield decode
    decode.scheduler.close(1)


def hand_over(decode: Decode, ask: AskPrefill) -> None:
    for layer in range(LAYERS):
        decode.push(ask, layer)
    decode.finish_hand_off(ask)


def started(decode: Decode, request_id: str) -> Started:
    return next(e for e in decode.events(request_id) if isinstance(e, Started))


def test_bytes_that_changed_on_their_way_are_never_decoded_from(decode: Decode) -> None:
    ask = decode.submit("r", 5 * PAGE, prefills=AB)
    offered = ask.request.target.pages
    decode.push(ask, 0)
    sent = layer_checksum(decode.parts.kv, 1, offered)
    decode.pool[1, 0, offered[2], 3, 1, 4] += 1e-6
    decode.push(ask, 1, checksum=sent)
    assert decode.events("r") == []
    assert decode.counted("kvloop_faults_total", kind="hand_off") == 1
    assert decode.said_last(GiveUp).attempt == ask.request.attempt
    assert decode.scheduler.load().quarantined_pages == 5

    again = decode.said_last(AskPrefill)
    assert again.url == "http://b"
    assert not set(again.request.target.pages) & set(offered)
    hand_over(decode, again)
    assert started(decode, "r").fallback == "prefill_retry"
    assert isinstance(decode.events("r")[-1], Finished)


def test_a_layer_that_never_came_is_missed_at_the_end(decode: Decode) -> None:
    ask = decode.submit("r", 5 * PAGE, prefills=AB)
    for layer in range(LAYERS - 1):
        decode.push(ask, layer)
    decode.finish_hand_off(ask)
    assert decode.events("r") == []
    assert decode.said_last(AskPrefill).url == "http://b"


def test_lines_of_an_attempt_that_was_given_up_change_nothing(decode: Decode) -> None:
    ask = decode.submit("r", 5 * PAGE, prefills=AB)
    decode.scheduler.handle(HandOffBroken("r", ask.request.attempt, "cut off"))
    hand_over(decode, ask)
    assert decode.events("r") == []
    hand_over(decode, decode.said_last(AskPrefill))
    assert started(decode, "r").prefill_node == "http://b"


def test_a_retry_that_finds_no_pages_waits_for_the_quarantine_to_end(decode: Decode) -> None:
    ask = decode.submit("r", 20 * PAGE, prefills=AB)
    decode.scheduler.handle(HandOffBroken("r", ask.request.attempt, "cut off"))
    load = decode.scheduler.load()
    assert (load.waiting, load.running, load.quarantined_pages) == (1, 0, 20)
    decode.scheduler.step()
    assert decode.said_last(AskPrefill) is ask
    decode.scheduler.handle(AttemptQuiet(ask.request.attempt, "acknowledged"))
    decode.scheduler.step()
    again = decode.said_last(AskPrefill)
    assert again.url == "http://b"
    hand_over(decode, again)
    assert started(decode, "r").fallback == "prefill_retry"


def test_a_request_aborted_in_its_hand_off_leaves_only_the_quarantine(decode: Decode) -> None:
    ask = decode.submit("r", 5 * PAGE, max_tokens=40)
    decode.scheduler.handle(Abort("r"))
    load = decode.scheduler.load()
    assert (load.running, load.waiting, load.quarantined_pages) == (0, 0, 5)
    assert load.free_pages == load.total_pages - 5
    decode.scheduler.handle(AttemptQuiet(ask.request.attempt, "dead"))
    assert decode.scheduler.load().free_pages == load.total_pages


def test_without_pages_in_time_a_request_is_answered_busy(tmp_path: Path) -> None:
    decode = Decode(save_config(tmp_path), 24, with_transfer=False, reserve_timeout_s=0.01)
    decode.submit("r", 20 * PAGE)
    with pytest.raises(AssertionError):
        decode.submit("late", 20 * PAGE)
    time.sleep(0.02)
    decode.scheduler.step()
    (event,) = decode.events("late")
    assert isinstance(event, Refused) and (event.status, event.kind) == (429, "busy")
    assert event.retry_after_s

"""A hand-off is done when every layer of every page came and its bytes are what was sent."""

import pytest

from kvloop.decode.hand_off import HandOff
from kvloop.shared_cache.errors import TransferError
from kvloop.shared_cache.wire import PrefillCandidate, PrefillDone, PromptSources, Pushed


def hand_off() -> HandOff:
    return HandOff(
        attempt="a",
        candidate=PrefillCandidate(url="http://p"),
        first_page=2,
        pages=[7, 8, 9],
        num_layers=2,
        page_bytes=100,
    )


def pushed(layer: int, first: int, count: int, checksum: int = 5) -> Pushed:
    return Pushed(layer=layer, first=first, count=count, checksum=checksum, computed_at=0.0)


def done(last_layer_at: float = 10.0) -> PrefillDone:
    return PrefillDone(
        first_token=1,
        logprob=None,
        sources=PromptSources(),
        storage=[],
        last_layer_at=last_layer_at,
    )


def test_a_page_that_is_pushed_twice_does_not_stand_in_for_a_missing_one() -> None:
    state = hand_off()
    state.take(pushed(0, 2, 2), lambda *_: 5, 1.0)
    with pytest.raises(TransferError, match="layer 0 pages 3\\+1 twice"):
        state.take(pushed(0, 3, 1), lambda *_: 5, 1.0)


def test_pushed_pages_are_checked_at_the_places_they_were_offered_at() -> None:
    seen = []
    hand_off().take(pushed(1, 3, 2), lambda layer, pages: seen.append((layer, pages)) or 5, 1.0)
    assert seen == [(1, [8, 9])]


def test_bytes_that_are_not_what_was_sent_fail_the_attempt() -> None:
    with pytest.raises(TransferError, match="checksum of layer 0"):
        hand_off().take(pushed(0, 2, 3), lambda *_: 6, 1.0)


@pytest.mark.parametrize("layer,first,count", [(0, 1, 1), (0, 4, 2), (2, 2, 1), (-1, 2, 1)])
def test_pages_and_layers_that_were_not_asked_for_fail_the_attempt(layer, first, count) -> None:
    with pytest.raises(TransferError, match="unasked"):
        hand_off().take(pushed(layer, first, count), lambda *_: 5, 1.0)


def test_an_end_before_every_layer_came_fails_the_attempt() -> None:
    attempt = hand_off()
    attempt.take(pushed(0, 2, 3), lambda *_: 5, 1.0)
    attempt.take(pushed(1, 2, 2), lambda *_: 5, 1.0)
    with pytest.raises(TransferError, match="layer 1: 2 of 3 pages"):
        attempt.finish("r", done(), 2.0)


def test_the_trace_tells_bytes_that_came_before_the_last_layer_was_computed() -> None:
    attempt = hand_off()
    attempt.take(pushed(0, 2, 3), lambda *_: 5, 1.0)
    attempt.take(pushed(1, 2, 3), lambda *_: 5, 3.0)
    trace = attempt.finish("r", done(last_layer_at=2.0), 4.0)
    assert (trace.bytes, trace.bytes_before_last_layer) == (1200, 600)


def test_silence_beyond_the_limit_is_a_stall() -> None:
    attempt = hand_off()
    attempt.heard_at = 100.0
    assert attempt.is_stalled(111.0, 10.0) and not attempt.is_stalled(109.0, 10.0)

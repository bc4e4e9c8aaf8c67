"""What a decode node's L1 tells of a request, by way of its real pages."""

from __future__ import annotations

from kvloop.decode.admission import own
from kvloop.decode.request import OwnedRequest
from kvloop.decode.request_pages import RequestPages
from kvloop.engine.event_recorder import Cleared, EventRecorder, Stored
from kvloop.shared_cache.keys import cache_seed, page_keys
from kvloop.shared_cache.tree_node import Tier
from kvloop.shared_cache.wire import CacheMode, GenerateRequest, Sampling

SIZE = 2
SEED = cache_seed(None, "salt")


def begun(cache: CacheMode = "on") -> tuple[OwnedRequest, RequestPages, EventRecorder]:
    """A request of two pages and a token, whose hand-off has come."""
    assert SEED is not None
    request = GenerateRequest(
        request_id="r",
        prompt=[1, 2, 3, 4, 5],
        sampling=Sampling(max_tokens=8),
        namespace="n",
        cache=cache,
        cache_seed=SEED.hex(),
    )
    events = EventRecorder(SIZE, wants_tokens=True)
    pages, owner = RequestPages(14, events=events), own(request, SIZE)
    assert pages.reserve(owner)
    return owner, pages, events


def test_prompt_and_answer_are_told_as_their_pages_fill() -> None:
    owner, pages, events = begun()
    keys = page_keys([1, 2, 3, 4, 5, 6], SIZE, SEED)
    pages.publish(owner)
    assert events.take() == [
        Stored(tier=Tier.DEVICE, keys=keys[:2], parent=None, tokens=[1, 2, 3, 4], seed=SEED)
    ]
    owner.output += [6, 7]
    pages.finish(owner)
    assert events.take() == [
        Stored(tier=Tier.DEVICE, keys=keys[2:], parent=keys[1], tokens=[5, 6], seed=SEED)
    ]
    assert not events._runs
    pages.release(owner)
    pages.cache.flush()
    assert events.take() == [Cleared()]


def test_a_request_without_cache_is_not_told_of() -> None:
    owner, pages, events = begun("off")
    pages.finish(owner)
    assert events.take() == []

"""A turn that comes before its session's last one is stored waits for it, for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from decode_engine import Decode, save_config
from faulty_store import FaultyStore
from hicache_node import PAGE
from offload_node import OffloadNode
from tiny_models import random_prompt

from kvloop.decode import scheduler
from kvloop.decode.request import OwnedRequest
from kvloop.engine.messages import AskPrefill, Submit
from kvloop.shared_cache.wire import GenerateRequest, PrefillCandidate, Sampling

PROMPT = [1, 2, 3, 4, 5]


@pytest.fixture
def node() -> Iterator[OffloadNode]:
    store = FaultyStore()
    node = OffloadNode(store)
    yield node
    store.heal()
    node.close()


def ended(node: OffloadNode) -> OwnedRequest:
    """A request that has left full pages of its answer."""
    owner = node.begin(PROMPT)
    assert owner is not None
    node.generate(owner, [7] * 5)
    node.end(owner)
    return owner


def test_pages_that_an_ended_request_left_are_on_their_way_until_they_are_stored(
    node: OffloadNode,
) -> None:
    owner = ended(node)
    assert len(owner.keys) > len(PROMPT) // PAGE
    assert node.offload.is_storing(owner.keys)
    node.settle()
    assert not node.offload.is_storing(owner.keys)


def test_neither_other_pages_nor_those_of_a_running_request_are_waited_for(
    node: OffloadNode,
) -> None:
    running = node.begin(PROMPT)
    assert running is not None
    node.generate(running, [7] * 5)
    assert not node.offload.is_storing(running.keys)
    node.end(running)
    assert not node.offload.is_storing([b"another"])
    assert not node.offload.is_storing([])
    assert node.offload.is_storing(running.keys)


def test_nobody_waits_for_a_shared_cache_that_is_away(node: OffloadNode) -> None:
    owner = ended(node)
    node.guard.detach(0.1)
    assert not node.offload.is_storing(owner.keys)


# --- the scheduler ----------------------------------------------------------------------------


@pytest.fixture
def decode(tmp_path: Path) -> Decode:
    return Decode(save_config(tmp_path), num_pages=32, with_transfer=False)


def submit(decode: Decode, request_id: str, length: int = 40) -> list[bytes]:
    """Take a request in; the keys of its prompt's pages."""
    request = GenerateRequest(
        request_id=request_id,
        prompt=random_prompt(length, len(request_id)),
        sampling=Sampling(max_tokens=4),
        namespace=decode.parts.identity.namespace,
        prefills=(PrefillCandidate(url="http://a"),),
    )
    decode.scheduler.handle(Submit(request))
    return decode.scheduler._waiting[-1].keys


def asked(decode: Decode) -> list[str]:
    """Requests that prefill was asked for."""
    return [said.request.request_id for said in decode.said if isinstance(said, AskPrefill)]


def test_prefill_is_asked_once_the_last_turns_pages_are_stored(
    decode: Decode, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, storing = submit(decode, "next"), True
    assert keys
    monkeypatch.setattr(
        decode.scheduler._offload, "is_storing", lambda run: storing and list(run) == keys
    )
    decode.scheduler.step()
    assert asked(decode) == []
    storing = False
    decode.scheduler.step()
    assert asked(decode) == ["next"]


def test_others_go_first_meanwhile(decode: Decode, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = submit(decode, "next")
    submit(decode, "another one")
    monkeypatch.setattr(decode.scheduler._offload, "is_storing", lambda run: list(run) == keys)
    decode.scheduler.step()
    assert asked(decode) == ["another one"]
    assert decode.scheduler.load().waiting == 1


def test_it_waits_no_longer_than_a_moment(decode: Decode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode.scheduler._offload, "is_storing", lambda run: True)
    submit(decode, "next")
    decode.scheduler.step()
    assert asked(decode) == []
    monkeypatch.setattr(scheduler, "_LAST_TURN_S", 0.0)
    decode.scheduler.step()
    assert asked(decode) == ["next"]

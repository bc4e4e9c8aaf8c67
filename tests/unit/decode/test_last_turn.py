"""A turn that comes before its session's last one is stored waits for it, for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from decode_engine import Decode, save_config
from faulty_store import FaultyStore
from offload_node import OffloadNode
from offload_steps import PROMPT, MakeNode
from tiny_models import random_prompt

from kvloop.decode import scheduler
from kvloop.decode.request import OwnedRequest
from kvloop.engine.messages import AskPrefill, Submit
from kvloop.shared_cache.wire import GenerateRequest, PrefillCandidate, Sampling


@pytest.fixture
def node(node_of: MakeNode) -> OffloadNode:
    return node_of()


def ended(node: OffloadNode) -> OwnedRequest:
    """A request that has left full pages of its answer."""
    owner = node.begin(PROMPT)
    assert owner is not None
    node.generate(owner, [7] * 5)
    node.end(owner)
    return owner


def next_turn(owner: OwnedRequest) -> list[bytes]:
    """Keys of a prompt that repeats the turn and goes on."""
    return [*owner.keys, b"new"]


def is_soon(node: OffloadNode, keys: list[bytes], wait_s: float = 0.5) -> bool:
    turn = node.offload.last_turn(keys)
    return turn is not None and node.offload.is_soon(turn, wait_s)


def test_pages_that_an_ended_request_left_are_on_their_way_until_they_are_stored(
    node: OffloadNode,
) -> None:
    owner = ended(node)
    turn = node.offload.last_turn(next_turn(owner))
    assert turn is not None and turn.num_pages == len(owner.keys) == 5
    for step in (node.turn, node.mover.finish, node.turn, node.turn):
        assert node.offload.is_soon(turn, 0.5)
        step()
    node.settle()
    assert not node.offload.is_soon(turn, 0.5)
    assert node.offload.last_turn(next_turn(owner)) is None


def test_a_prompt_that_leaves_the_answer_early_waits_for_what_it_repeats_only(
    node: OffloadNode,
) -> None:
    owner = ended(node)
    turn = node.offload.last_turn([*owner.keys[:3], b"edited", b"edited"])
    assert turn is not None and turn.num_pages == 3
    node.turn()
    node.mover.finish()
    node.turn()
    (batch, _), *_ = node.offload._writer._calls
    assert {page.index for page in batch} >= {2, 3, 4}
    batch[0].chain.moving.difference_update([page for page in batch if page.index < 3])
    assert not node.offload.is_soon(turn, 0.5)


def test_neither_other_pages_nor_those_of_a_running_request_are_waited_for(
    node: OffloadNode,
) -> None:
    running = node.begin(PROMPT)
    assert running is not None
    node.generate(running, [7] * 5)
    assert not is_soon(node, next_turn(running))
    node.end(running)
    assert not is_soon(node, [b"another"] * 9)
    assert not is_soon(node, [])
    assert is_soon(node, next_turn(running))


def test_a_session_that_shares_only_the_prompt_waits_for_none_of_its_holes(
    node: OffloadNode,
) -> None:
    owner = node.serve(PROMPT, 6, states="will_not")
    node.turn()
    assert node.looks.step()
    node.turn()
    assert node.offload.backlog == len(owner.keys), "the holes are due"
    assert not is_soon(node, owner.keys[:2])
    assert not is_soon(node, [*owner.keys[:2], b"another", b"another"])


def test_nobody_waits_for_a_shared_cache_that_is_away(node: OffloadNode) -> None:
    owner = ended(node)
    node.guard.detach(0.1)
    assert not is_soon(node, next_turn(owner))


def test_nobody_waits_for_a_shared_cache_that_is_slower_than_the_wait(node: OffloadNode) -> None:
    ended(node)
    node.now += 0.7
    node.settle(pause_s=0.0)
    slow = node.serve([9, *PROMPT], 6)
    assert not is_soon(node, next_turn(slow)) and is_soon(node, next_turn(slow), 0.8)
    node.settle(pause_s=0.0)
    quick = node.serve([8, *PROMPT], 6)
    assert is_soon(node, next_turn(quick)), "it is quick again"


def test_holes_that_are_mended_late_do_not_make_a_shared_cache_slow(node: OffloadNode) -> None:
    node.serve(PROMPT, 6, states="storing")
    node.settle(pause_s=0.1)
    assert node.holes("failed", True) == 2, "a second after the hand-off"
    assert is_soon(node, next_turn(node.serve([9, *PROMPT], 6)))


def test_nobody_waits_for_a_shared_cache_that_takes_no_page(
    node: OffloadNode, store: FaultyStore
) -> None:
    store.has_room = False
    ended(node)
    node.settle()
    assert not is_soon(node, next_turn(node.serve([9, *PROMPT], 6)))


# --- the scheduler ----------------------------------------------------------------------------


@pytest.fixture
def decode(tmp_path: Path) -> Decode:
    return Decode(save_config(tmp_path), num_pages=32, with_transfer=False)


def submit(
    decode: Decode, request_id: str, length: int = 40, prefills: tuple[str, ...] = ("http://a",)
) -> None:
    """Take a request in."""
    request = GenerateRequest(
        request_id=request_id,
        prompt=random_prompt(length, len(request_id)),
        sampling=Sampling(max_tokens=4, ignore_eos=True),
        namespace=decode.parts.identity.namespace,
        prefills=tuple(PrefillCandidate(url=url) for url in prefills),
    )
    decode.scheduler.handle(Submit(request))


def asked(decode: Decode) -> list[str]:
    """Requests that prefill was asked for."""
    return [said.request.request_id for said in decode.said if isinstance(said, AskPrefill)]


class Last:
    """In the place of the offload's view: the next request that comes has a last turn."""

    def __init__(self, decode: Decode, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_storing = True
        self.waits: list[float] = []
        self._turns = [object()]
        offload = decode.scheduler._offload
        monkeypatch.setattr(
            offload, "last_turn", lambda keys: self._turns.pop() if self._turns else None
        )
        monkeypatch.setattr(offload, "is_soon", self._is_soon)

    def _is_soon(self, turn: object, wait_s: float) -> bool:
        self.waits.append(wait_s)
        return self.is_storing


def test_prefill_is_asked_once_the_last_turns_pages_are_stored(
    decode: Decode, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = Last(decode, monkeypatch)
    submit(decode, "next")
    decode.scheduler.step()
    assert asked(decode) == []
    last.is_storing = False
    decode.scheduler.step()
    assert asked(decode) == ["next"]


def test_others_go_first_meanwhile(decode: Decode, monkeypatch: pytest.MonkeyPatch) -> None:
    Last(decode, monkeypatch)
    submit(decode, "next")
    submit(decode, "another one")
    submit(decode, "yet another one")
    decode.scheduler.step()
    assert asked(decode) == ["another one", "yet another one"]
    assert decode.scheduler.load().waiting == 1


def test_it_waits_no_longer_than_a_moment(decode: Decode, monkeypatch: pytest.MonkeyPatch) -> None:
    last = Last(decode, monkeypatch)
    submit(decode, "next")
    decode.scheduler.step()
    assert asked(decode) == [] and set(last.waits) == {0.5}
    monkeypatch.setattr(scheduler, "_LAST_TURN_S", 0.0)
    decode.scheduler.step()
    assert asked(decode) == ["next"]


def test_what_this_node_computes_itself_waits_for_nothing(
    decode: Decode, monkeypatch: pytest.MonkeyPatch
) -> None:
    Last(decode, monkeypatch)
    submit(decode, "next", prefills=())
    decode.scheduler.step()
    assert decode.scheduler.load().running == 1


def test_the_wait_makes_no_request_too_late_for_its_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Decode(save_config(tmp_path), 32, with_transfer=False, reserve_timeout_s=0.4)
    last = Last(decode, monkeypatch)
    submit(decode, "next")
    decode.scheduler.step()
    assert asked(decode) == [] and last.waits == [0.2]
    (owner,) = decode.scheduler._waiting
    owner.waiting_since -= 0.3
    decode.scheduler.step()
    assert asked(decode) == ["next"]

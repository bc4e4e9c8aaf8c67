"""Which tokens deserve storing, and that no others are stored."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from faulty_store import FaultyStore
from hypothesis import given
from offload_steps import PROMPT, MakeNode, keep

from kvloop.decode.offload.policy import Storable, storable_tokens
from kvloop.shared_cache.wire import GenerateRequest, Sampling, StripRule

THINK, END = 50, 51
OPENS = StripRule(opens=(THINK,))
CLOSES = StripRule(opens=(THINK,), closes=(END,))


def tokens(output: list[int], strip: StripRule | None = None, **fields: Any) -> int | None:
    known: dict[str, Any] = {"policy": "answer", "returns": None, "is_over": True, **fields}
    return storable_tokens(10, output, strip, **known)


def test_an_answer_that_nothing_is_stripped_of_is_stored_whole() -> None:
    assert tokens([1, 2, THINK]) is None
    assert tokens([1, 2, 3], OPENS) is None
    assert tokens([1, THINK], StripRule()) is None


def test_what_follows_the_opening_of_a_stripped_block_is_not_stored() -> None:
    assert tokens([1, 2, THINK, 3, THINK], OPENS) == 12
    assert tokens([THINK], OPENS) == 10
    two = StripRule(opens=(THINK, 9))
    assert tokens([1, THINK, THINK, 9, 4], two) == 12
    assert tokens([1, THINK, 8, 9], two) is None


def test_a_block_that_the_prompt_has_opened_ends_what_is_stored_within_the_prompt() -> None:
    assert tokens([1, 2], StripRule(kept_prompt=7)) == 7
    assert tokens([1, 2], StripRule(kept_prompt=99)) == 10
    assert tokens([1, THINK], StripRule(opens=(THINK,), kept_prompt=4)) == 4


def test_a_block_that_was_never_closed_is_repeated_and_so_is_stored() -> None:
    assert tokens([1, THINK, 2, 3], CLOSES) is None
    assert tokens([1, THINK, 2, END], CLOSES) == 11
    assert tokens([END, THINK, 2], CLOSES) is None
    kept = StripRule(kept_prompt=7, closes=(END,))
    assert (tokens([1, 2], kept), tokens([1, END], kept)) == (None, 7)


def test_until_the_answer_ends_an_open_block_is_held_back() -> None:
    assert tokens([1, THINK, 2, 3], CLOSES, is_over=False) == 11
    assert tokens([1, 2], StripRule(kept_prompt=7, closes=(END,)), is_over=False) == 7


def test_policy_all_stores_everything_of_every_session() -> None:
    assert tokens([THINK, 1], OPENS, policy="all", returns=False) is None


@pytest.mark.parametrize(("returns", "limit"), [(False, 0), (True, 11), (None, 11)])
def test_selective_stores_nothing_of_a_session_that_will_not_return(
    returns: bool | None, limit: int
) -> None:
    assert tokens([1, THINK], OPENS, policy="selective", returns=returns) == limit
    assert tokens([1, THINK], OPENS, policy="answer", returns=returns) == 11


_TOKENS = st.integers(THINK - 1, END)
_IDS = st.lists(_TOKENS, max_size=3).map(tuple)


@given(
    output=st.lists(_TOKENS, max_size=30),
    rule=st.none()
    | st.builds(StripRule, opens=_IDS, closes=_IDS, kept_prompt=st.none() | st.integers(0, 12)),
    policy=st.sampled_from(["all", "answer", "selective"]),
    returns=st.sampled_from([None, True, False]),
    cuts=st.sets(st.integers(0, 30)),
)
def test_told_bit_by_bit_it_finds_the_same_as_at_once(
    output: list[int], rule: StripRule | None, policy: Any, returns: bool | None, cuts: set[int]
) -> None:
    sampling = Sampling(max_tokens=1)
    request = GenerateRequest(
        request_id="r",
        prompt=[1] * 10,
        sampling=sampling,
        namespace="",
        strip=rule,
        returns=returns,
    )
    storable = Storable(request, policy)
    for cut in sorted(cuts):
        so_far = output[:cut]
        known = storable_tokens(10, so_far, rule, policy, returns, is_over=False)
        assert storable.limit(so_far, is_over=False) == known
    assert storable.limit(output, is_over=True) == storable_tokens(
        10, output, rule, policy, returns
    )


# --- step by step ---------------------------------------------------------------------------------


def test_what_the_template_strips_is_not_stored(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of()
    rule = StripRule(opens=(50,), closes=(51,))
    owner = node.begin(PROMPT, strip=rule)
    assert owner is not None
    keep(store, node, owner.keys[:2])
    node.generate(owner, [8, 50, 8, 8, 8, 8, 51, 9])
    node.settle()
    node.end(owner)
    node.settle()
    assert set(store.pages) == set(owner.keys[:3]), "up to the block's beginning"
    assert node.counted("kvloop_offload_skipped_pages_total", reason="stripped") == 3
    bytes_skipped = node.counted("kvloop_offload_skipped_bytes_total", reason="stripped")
    assert bytes_skipped == 3 * node.pool.shape.slot_bytes
    assert sum(node.holes(r, False) for r in ("failed", "deadline", "detached")) == 0


def test_an_answer_that_was_cut_off_inside_its_block_is_stored_at_its_end(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of()
    owner = node.begin(PROMPT, strip=StripRule(opens=(50,), closes=(51,)))
    assert owner is not None
    node.generate(owner, [8, 50, 8, 8, 8, 8, 8])
    node.settle()
    assert len(store.pages) == 3
    node.end(owner)
    node.settle()
    assert set(store.pages) == set(owner.keys) and len(owner.keys) == 6


def test_of_an_ended_request_another_store_is_asked_only_for_what_the_next_turn_repeats(
    node_of: MakeNode,
) -> None:
    node = node_of()
    rule = StripRule(kept_prompt=4)
    owner = node.serve([1, 2, 3, 4, 5, 6, 7, 8, 9], 4, states="will_not", strip=rule)
    node.turn()
    other = FaultyStore()
    node.attach(other)
    node.settle(4, pause_s=0.1)
    assert set(other.pages) == set(owner.keys[:2])
    assert node.offload.backlog == 0 and not node.offload.holds(owner), "nothing is left to do"


def test_policy_all_stores_what_is_stripped(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of(offload_policy="all")
    owner = node.serve(PROMPT, 8, strip=StripRule(kept_prompt=2), returns=False)
    node.settle()
    assert set(store.pages) == set(owner.keys)


def test_a_session_that_ends_stores_and_mends_nothing_under_selective(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of(offload_policy="selective")
    owner = node.serve(PROMPT, 8, states="will_not", returns=False)
    node.settle(2, pause_s=0.0)
    assert not node.offload.holds(owner) and node.offload.backlog == 0, "nothing is waited for"
    node.settle()
    assert not store.pages and node.all_is_free()
    assert node.holes("policy", False) + node.holes("deadline", False) == 0
    skipped = node.counted("kvloop_offload_skipped_pages_total", reason="session")
    assert skipped == len(owner.keys) - 2
    returning = node.serve([9, *PROMPT], 8, states="will_not", returns=None)
    node.settle()
    assert set(store.pages) == set(returning.keys)

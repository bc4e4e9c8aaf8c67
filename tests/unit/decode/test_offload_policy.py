"""Which tokens deserve storing."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

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

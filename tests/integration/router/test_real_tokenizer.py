"""Incremental text with the chat model's own tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvloop.router.detokenizer import Detokenizer

pytestmark = pytest.mark.integration

TEXT = "naïve 🇫🇷 👩‍👩‍👧 日本語 Žluťoučký \U0001d518\U0001d52b\n\n  code(x) => y; ÿ"


def pieces(tokenizer: Any, ids: list[int], skip: bool) -> list[str]:
    detokenizer = Detokenizer(lambda part: tokenizer.decode(part, skip_special_tokens=skip))
    return [*map(detokenizer.push, ids), detokenizer.flush()]


@settings(deadline=None, max_examples=300)
@given(ids=st.lists(st.integers(0, 49151), max_size=60), skip=st.booleans())
def test_pieces_join_to_the_decoded_whole(tokenizer: Any, ids: list[int], skip: bool) -> None:
    whole = tokenizer.decode(ids, skip_special_tokens=skip)
    assert "".join(pieces(tokenizer, ids, skip)) == whole


def test_no_piece_cuts_a_character(tokenizer: Any) -> None:
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    parts = pieces(tokenizer, ids, skip=True)
    assert "".join(parts) == TEXT
    assert not any("\ufffd" in part for part in parts)
    assert len([part for part in parts if part]) > 10


def test_token_bytes_join_to_the_text(tokenizer: Any) -> None:
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert bytes(b for i in ids for b in tokenizer.token_bytes(i)).decode() == TEXT

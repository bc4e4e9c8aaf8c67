"""How tails are named, found and told apart."""

from __future__ import annotations

import hashlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from kvloop.shared_cache.keys import cache_seed, page_keys
from kvloop.shared_cache.tail import (
    MAX_TAILS,
    Tail,
    decode_record,
    encode_record,
    longest_match,
    record_name,
    tail_key,
    with_newest,
)

PARENT = page_keys(range(8), 4)[-1]
OTHER = page_keys(range(1, 9), 4)[-1]
VECTOR = "4bfa06d5757fc17b9947a73b34486d87eaf1de38082c57e3d168cf9f7a79cff9"


def tail(*tokens: int, parent: bytes | None = PARENT) -> Tail:
    return Tail(len(tokens), tail_key(parent, tokens))


def test_the_published_test_vectors_hold() -> None:
    assert tail_key(PARENT, [8, 9, 10]).hex() == VECTOR
    assert record_name(PARENT) == "tail-0141"
    record = encode_record([tail(8, 9, 10)])
    assert record.hex() == "6b766c7461696c01" + "03000000" + VECTOR
    first = "a6557ee7b39795e2fd77cc24a46b033c7acb85a35de6dbf2d3898ee116278b30"
    assert tail_key(None, [0, 1, 2]).hex() == first and record_name(None) == "tail-root"
    seed = cache_seed("acme", "blue")
    seeded = "6f2ab27bb5524fdd3e27ec9ea90709bf4666c48dd7666e1c00af676ea8437981"
    assert tail_key(seed, [0, 49151, 4294967295]).hex() == seeded
    assert record_name(seed) == "tail-9014"


def test_the_key_is_the_digest_of_parent_domain_and_tokens() -> None:
    data = PARENT + b"kvloop-tail-1" + struct.pack("<2I", 5, 6)
    assert tail_key(PARENT, [5, 6]) == hashlib.sha256(data).digest()


def test_a_tail_has_the_key_of_no_page() -> None:
    assert tail_key(PARENT, [1, 2, 3, 4]) not in page_keys([1, 2, 3, 4], 4, parent=PARENT)


def test_a_record_names_tails_newest_first() -> None:
    record = with_newest(with_newest(None, tail(1)), tail(2))
    assert decode_record(record) == [tail(2), tail(1)]


def test_a_tail_that_is_stored_again_is_named_once() -> None:
    record = encode_record([tail(1), tail(2)])
    assert decode_record(with_newest(record, tail(2))) == [tail(2), tail(1)]


def test_the_oldest_tail_leaves_a_full_record() -> None:
    record = encode_record([tail(n) for n in range(MAX_TAILS)])
    named = decode_record(with_newest(record, tail(99)))
    assert named == [tail(99), *[tail(n) for n in range(MAX_TAILS - 1)]]


def test_bytes_that_are_no_record_are_told_from_an_empty_one_and_begun_anew() -> None:
    whole = encode_record([tail(1)])
    assert decode_record(encode_record([])) == []
    for broken in (b"", whole[:-1], whole + b"x", whole[:7] + b"\x02" + whole[8:]):
        assert decode_record(broken) is None
        assert decode_record(with_newest(broken, tail(2))) == [tail(2)]


def test_the_longest_tail_that_a_prompt_continues_is_chosen() -> None:
    named = [tail(1), tail(1, 2, 3), tail(1, 2), tail(1, 5, 6, 7)]
    assert longest_match(named, PARENT, [1, 2, 3, 4, 5]) == tail(1, 2, 3)


def test_a_tail_of_another_branch_parent_or_length_is_no_match() -> None:
    assert longest_match([tail(1, 2)], PARENT, [1, 3]) is None
    assert longest_match([tail(1, 2)], OTHER, [1, 2]) is None
    assert longest_match([tail(1, 2)], None, [1, 2]) is None
    assert longest_match([tail(1, 2)], PARENT, [1]) is None
    assert longest_match([Tail(1, tail(1, 2).key)], PARENT, [1, 2]) is None
    assert longest_match([Tail(0, tail_key(PARENT, []))], PARENT, [1]) is None


@given(st.binary(max_size=200), st.lists(st.integers(0, 2**32 - 1), max_size=8))
def test_whatever_a_record_says_only_the_prompts_own_tokens_are_found(
    noise: bytes, tokens: list[int]
) -> None:
    named = decode_record(b"kvltail\x01" + noise) or []
    assert longest_match([*named, tail(7, 7)], PARENT, tokens) == (
        tail(7, 7) if tokens[:2] == [7, 7] else None
    )


@given(st.binary(min_size=32, max_size=32))
def test_names_are_few_whatever_the_key(parent: bytes) -> None:
    assert record_name(parent) == f"tail-{parent.hex()[:4]}"

"""Records of answers: what they hold, how long they are, and what becomes of damaged ones."""

from __future__ import annotations

import contextlib
import random
import struct
import zlib
from array import array
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from kvloop.router.history import Known
from kvloop.router.history_record import (
    MAX_BYTES,
    MAX_OLDER_TOKENS,
    NUM_SLOTS,
    DamagedRecord,
    Record,
    Segment,
    decode_record,
    encode_record,
    pack,
    record_name,
)

CHAT = b"c" * 32
RECORD = Record(
    2,
    (Segment(4, 120, False, array("I", [7, 70_000, 0])), Segment(6, 300, True, array("I"))),
)


def known(number: int, num_answer: int = 10, parent: int | None = None) -> Known:
    """The chat's answer that is message `number`."""
    return Known(
        ids=array("I", [1] * 50 + [number] * num_answer),
        num_prompt=50,
        prompt_chars=100 * number,
        prompt_digest=b"",
        num_messages=number,
        parent=number - 2 if parent is None else parent,
        drifted=number > 2,
    )


def parents(*all_known: Known) -> Any:
    by_number = {each.num_messages: each for each in all_known}
    return lambda child: by_number.get(child.parent)


def test_a_record_comes_back_as_it_was() -> None:
    assert decode_record(CHAT, encode_record(CHAT, RECORD), 6) == RECORD


@given(
    answers=st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=50), min_size=1, max_size=4),
    follows=st.integers(0, 9),
)
def test_any_ids_come_back(answers: list[list[int]], follows: int) -> None:
    segments = tuple(
        Segment(follows + 2 * n, 10 * n, bool(n % 2), array("I", ids))
        for n, ids in enumerate(answers, 1)
    )
    record = Record(follows, segments)
    value = encode_record(CHAT, record)
    assert decode_record(CHAT, value, segments[-1].num_messages) == record


def test_another_chats_record_in_the_slot_is_a_miss() -> None:
    assert decode_record(b"d" * 32, encode_record(CHAT, RECORD), 6) is None


def test_another_version_is_a_miss_and_so_is_what_is_too_short() -> None:
    value = encode_record(CHAT, RECORD)
    assert decode_record(CHAT, b"\x02" + value[1:], 6) is None
    assert decode_record(CHAT, value[:10], 6) is None and decode_record(CHAT, b"", 6) is None


def test_a_flipped_bit_anywhere_is_never_another_record() -> None:
    value = encode_record(CHAT, RECORD)
    for place in range(len(value)):
        flipped = bytearray(value)
        flipped[place] ^= 1
        with contextlib.suppress(DamagedRecord):
            assert decode_record(CHAT, bytes(flipped), 6) is None, place


def sealed(body: bytes) -> bytes:
    """A record whose checksum is right, whatever it holds."""
    header = encode_record(CHAT, RECORD)[:17]
    return header + struct.pack("<Q", xxhash.xxh3_64_intdigest(body)) + body


def head(follows: int, *segments: tuple[int, int, int, int]) -> bytes:
    return struct.pack("<II", follows, len(segments)) + b"".join(
        struct.pack("<IIII", *segment) for segment in segments
    )


@pytest.mark.parametrize(
    "body",
    [
        b"no zlib",
        zlib.compress(b""),
        zlib.compress(head(0)),
        zlib.compress(head(0, (6, 10, 0, 1))),
        zlib.compress(head(0, (6, 10, 0, 0)) + b"\x01"),
        zlib.compress(head(0, (6, 10, 0, 0)) + b"\x01" * 4),
        zlib.compress(head(0, (4, 10, 0, 0))),
        zlib.compress(head(6, (6, 10, 0, 0))),
        zlib.compress(head(0, (6, 10, 0, 0), (6, 20, 0, 0))),
        zlib.compress(head(0, (4, 20, 0, 0), (6, 20, 0, 0))),
        zlib.compress(struct.pack("<II", 0, 1 << 31)),
        zlib.compress(head(0, (6, 10, 0, 0)))[:-3],
        zlib.compress(head(0, (6, 10, 0, 0))) + b"more",
        zlib.compress(head(0, (6, 10, 0, 1 << 20)) + bytes(4 << 20)),
    ],
)
def test_what_no_writer_of_ours_makes_is_refused(body: bytes) -> None:
    with pytest.raises(DamagedRecord):
        decode_record(CHAT, sealed(body), 6)


def test_a_record_longer_than_any_of_ours_is_refused() -> None:
    noise = array("I", random.Random(1).choices(range(1 << 32), k=5000))
    value = encode_record(CHAT, Record(0, (Segment(6, 10, False, noise),)))
    assert len(value) > MAX_BYTES
    with pytest.raises(DamagedRecord):
        decode_record(CHAT, value, 6)


def test_names_are_slots_that_spread_evenly() -> None:
    names = {record_name(bytes([n >> 8, n & 255]) * 16) for n in range(2000)}
    assert len(names) > 1900
    assert all(int(name.removeprefix("hist1-"), 16) < NUM_SLOTS for name in names)
    assert record_name(CHAT) == record_name(CHAT)


def test_a_record_holds_the_short_answers_before_its_own() -> None:
    first, second, third = known(2, parent=0), known(4), known(6)
    record = pack(third, parents(first, second))
    assert record.follows == 0
    assert [segment.num_messages for segment in record.segments] == [2, 4, 6]
    assert [segment.prompt_chars for segment in record.segments] == [200, 400, 600]
    assert [segment.drifted for segment in record.segments] == [False, True, True]
    assert [list(segment.answer) for segment in record.segments] == [[2] * 10, [4] * 10, [6] * 10]


def test_a_record_names_the_messages_of_answers_that_are_long_or_forgotten() -> None:
    long = known(4, num_answer=MAX_OLDER_TOKENS)
    assert pack(known(6), parents(known(2, parent=0), long)).follows == 4
    forgotten = pack(known(6), parents(known(4)))
    assert forgotten.follows == 2 and len(forgotten.segments) == 2


def test_sampled_answers_of_a_page_record_are_a_few_kib() -> None:
    ids = array("I", random.Random(2).choices(range(49152), k=MAX_OLDER_TOKENS))
    value = encode_record(CHAT, Record(0, (Segment(2, 100, True, ids),)))
    assert len(value) < 2.2 * MAX_OLDER_TOKENS

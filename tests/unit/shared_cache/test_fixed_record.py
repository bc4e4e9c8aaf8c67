"""Records as blocks of one length: what is not whole is none."""

from __future__ import annotations

import pytest

from kvloop.shared_cache.backends.fixed_record import (
    LONGEST_VALUE,
    RECORD_BYTES,
    decode_record,
    encode_record,
)


@pytest.mark.parametrize("value", [b"", b"epoch", bytes(range(256)) * 64, b"\x00" * LONGEST_VALUE])
def test_a_record_comes_back_and_is_as_long_as_any_other(value: bytes) -> None:
    record = encode_record(value)
    assert len(record) == RECORD_BYTES and decode_record(record) == value


def test_two_records_of_one_value_differ() -> None:
    assert encode_record(b"epoch") != encode_record(b"epoch")


@pytest.mark.parametrize("byte", [0, 7, 8, 15, 24, 28])
def test_a_flipped_bit_of_length_checksum_or_value_is_no_record(byte: int) -> None:
    record = bytearray(encode_record(b"epoch"))
    record[byte] ^= 0x10
    assert decode_record(bytes(record)) is None


def test_what_is_shorter_longer_or_never_written_is_no_record() -> None:
    record = encode_record(b"epoch")
    assert decode_record(record[:-1]) is None and decode_record(record + b"\x00") is None
    assert decode_record(bytes(RECORD_BYTES)) is None

"""Small records as blocks of one length, for stores that must be told how much they will read."""

from __future__ import annotations

import secrets
import struct

import xxhash

RECORD_BYTES = 20 << 10
_HEADER = struct.Struct("<QQ8s")
LONGEST_VALUE = RECORD_BYTES - _HEADER.size


def encode_record(value: bytes) -> bytes:
    """RECORD_BYTES long; never the same twice, so that it shows whether a put took effect."""
    assert len(value) <= LONGEST_VALUE, len(value)
    header = _HEADER.pack(len(value), xxhash.xxh3_64_intdigest(value), secrets.token_bytes(8))
    return (header + value).ljust(RECORD_BYTES, b"\x00")


def decode_record(record: bytes) -> bytes | None:
    """The value; None where these bytes are no whole record."""
    if len(record) != RECORD_BYTES:
        return None
    length, checksum, _ = _HEADER.unpack_from(record)
    value = record[_HEADER.size :][:length]
    return value if xxhash.xxh3_64_intdigest(value) == checksum else None

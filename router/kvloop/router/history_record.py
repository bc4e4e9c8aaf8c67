"""A remembered answer as a small record of the shared cache: ids and digests, never text. Pure.

A record holds the ids of one answer, with those of the answers before it as far as they are few,
and says after how many messages its past is found in another record. What lies between answers is
text that the reader has, and tokenizes as the writer did.

Names are a fixed number of slots, and a new record takes the place of an old one that has the same:
so the records of a namespace never take more than NUM_SLOTS * MAX_BYTES, in stores too that evict
no records.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

import xxhash

from kvloop.router.history import Known

NUM_SLOTS = 1 << 15
MAX_BYTES = 16 << 10
"""Every backend keeps records of this length."""
MAX_OLDER_TOKENS = 2048
"""With so many ids a record takes in no answer before them."""

_VERSION = 1
_HEADER = struct.Struct("<B16sQ")  # version, whose it is, xxh3 of the body
_COUNTS = struct.Struct("<II")  # messages that another record covers, segments
_SEGMENT = struct.Struct("<IIII")  # messages, characters, drifted, ids
_MAX_BODY = 1 << 20
_ID_BYTES = 4


class Segment(NamedTuple):
    """One answer, and where in the chat it stands."""

    num_messages: int
    """The answer included."""
    prompt_chars: int
    """Of the rendered prompt that it answered."""
    drifted: bool
    """Whether that prompt's ids differ from its text tokenized anew."""
    answer: array[int]


class Record(NamedTuple):
    """Segments in the chat's order."""

    follows: int
    """So many messages are another record's; 0: none, the first segment's prompt is plain text."""
    segments: tuple[Segment, ...]


class DamagedRecord(ValueError):
    """The bytes name this chat but are no record."""


def record_name(digest: bytes) -> str:
    """Its slot. Two chats that share one overwrite each other's."""
    slot = hashlib.sha256(b"kvloop-history-slot-1" + digest).digest()
    return f"hist1-{int.from_bytes(slot[:8], 'little') % NUM_SLOTS:04x}"


def pack(known: Known, parent_of: Callable[[Known], Known | None]) -> Record:
    """The chat's last answers, as many as are short; `parent_of` may have forgotten them."""
    segments = [_segment(known)]
    num_ids = len(known.answer)
    while known.parent:
        parent = parent_of(known)
        if parent is None or num_ids + len(parent.answer) > MAX_OLDER_TOKENS:
            break
        num_ids += len(parent.answer)
        segments.append(_segment(parent))
        known = parent
    return Record(known.parent, tuple(reversed(segments)))


def encode_record(digest: bytes, record: Record) -> bytes:
    """May come out longer than MAX_BYTES: then it is not to be stored."""
    parts = [_COUNTS.pack(record.follows, len(record.segments))]
    for segment in record.segments:
        parts.append(_SEGMENT.pack(*segment[:3], len(segment.answer)))
    parts.append(_planes(token for segment in record.segments for token in segment.answer))
    body = zlib.compress(b"".join(parts))
    return _HEADER.pack(_VERSION, _owner(digest), xxhash.xxh3_64_intdigest(body)) + body


def decode_record(digest: bytes, value: bytes, num_messages: int) -> Record | None:
    """The record of the chat whose first `num_messages` have this digest; None: another chat's.

    Raises DamagedRecord. The ids may still be anyone's: they count for nothing before they are
    compared with the text.
    """
    if len(value) < _HEADER.size:
        return None
    version, owner, checksum = _HEADER.unpack_from(value)
    if version != _VERSION or owner != _owner(digest):
        return None
    body = value[_HEADER.size :]
    if len(value) > MAX_BYTES or checksum != xxhash.xxh3_64_intdigest(body):
        raise DamagedRecord("its checksum differs")
    record = _parsed(_inflated(body))
    ends = [record.follows, *(segment.num_messages for segment in record.segments)]
    chars = [segment.prompt_chars for segment in record.segments]
    if ends[-1] != num_messages or not (_grow(ends) and _grow(chars)):
        raise DamagedRecord("its answers are not in the chat's order")
    return record


def _segment(known: Known) -> Segment:
    return Segment(known.num_messages, known.prompt_chars, known.drifted, known.answer)


def _owner(digest: bytes) -> bytes:
    return hashlib.sha256(b"kvloop-history-record-1" + digest).digest()[:16]


def _inflated(body: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(body, _MAX_BODY)
    except zlib.error as error:
        raise DamagedRecord(str(error)) from None
    if not inflate.eof or inflate.unused_data:
        raise DamagedRecord("its body has another length than it says")
    return data


def _parsed(data: bytes) -> Record:
    try:
        follows, count = _COUNTS.unpack_from(data)
        heads = [_SEGMENT.unpack_from(data, at) for at in _starts(data, count)]
    except struct.error as error:
        raise DamagedRecord(str(error)) from None
    ids = _joined(data[_COUNTS.size + count * _SEGMENT.size :])
    if not heads or len(ids) != sum(num_ids for *_, num_ids in heads):
        raise DamagedRecord("its body has another length than it says")
    segments, start = [], 0
    for num_messages, chars, drifted, num_ids in heads:
        answer = ids[start : start + num_ids]
        segments.append(Segment(num_messages, chars, bool(drifted), answer))
        start += num_ids
    return Record(follows, tuple(segments))


def _starts(data: bytes, count: int) -> range:
    if count > len(data) // _SEGMENT.size:
        raise DamagedRecord("it has fewer segments than it says")
    return range(_COUNTS.size, _COUNTS.size + count * _SEGMENT.size, _SEGMENT.size)


def _grow(numbers: list[int]) -> bool:
    return all(before < after for before, after in pairwise(numbers))


def _planes(ids: Iterable[int]) -> bytes:
    """All lowest bytes, then all second ones and so on: the high ones are alike, cost nothing."""
    raw = _little_endian(array("I", ids)).tobytes()
    return b"".join(raw[plane::_ID_BYTES] for plane in range(_ID_BYTES))


def _joined(planes: bytes) -> array[int]:
    num_ids, rest = divmod(len(planes), _ID_BYTES)
    if rest:
        raise DamagedRecord("its ids are cut off")
    raw = bytearray(len(planes))
    for plane in range(_ID_BYTES):
        raw[plane::_ID_BYTES] = planes[plane * num_ids : (plane + 1) * num_ids]
    return _little_endian(array("I", bytes(raw)))


def _little_endian(ids: array[int]) -> array[int]:
    if sys.byteorder == "big":
        ids.byteswap()
    return ids

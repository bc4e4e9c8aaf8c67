"""Tails: how the last partial page of a finished turn is named, and how the next turn finds it.

A tail is stored as a page object under a key of its own; a small record, found from the key of the
page before it, names the newest tails that begin there. docs/tails.md has format and test vectors.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kvloop.shared_cache.keys import KEY_BYTES, token_bytes

MAX_TAILS = 16
"""Tails that one record names: turns that went on differently from the same page."""

_DOMAIN = b"kvloop-tail-1"
_MAGIC = b"kvltail\x01"
_ENTRY = struct.Struct(f"<I{KEY_BYTES}s")
_NAME_BYTES = 2


class Tail(NamedTuple):
    """One partial page."""

    num_tokens: int
    """At least one, and fewer than a page has."""
    key: bytes


def tail_key(parent: bytes | None, tokens: Sequence[int]) -> bytes:
    """The 32-byte key of the page object that holds the KV of `tokens`, a page's first ones.

    `parent` is the key of the page before; at a chain's start its seed, or None where it has none.
    No page has the same key: what is digested differs in length.
    """
    return hashlib.sha256((parent or b"") + _DOMAIN + token_bytes(tokens)).digest()


def record_name(parent: bytes | None) -> str:
    """The record of the tails behind a page.

    Stores keep small records for ever, so their number is bounded: 65,536 names, which different
    pages share as the sets of a cache do. Readers check what they find.
    """
    return f"tail-{parent[:_NAME_BYTES].hex()}" if parent else "tail-root"


def encode_record(tails: Iterable[Tail]) -> bytes:
    """Newest first."""
    return _MAGIC + b"".join(_ENTRY.pack(*tail) for tail in tails)


def decode_record(record: bytes) -> list[Tail] | None:
    """None where these bytes are no record of this version."""
    entries = record[len(_MAGIC) :]
    if not record.startswith(_MAGIC) or len(entries) % _ENTRY.size:
        return None
    return [Tail(*fields) for fields in _ENTRY.iter_unpack(entries)]


def with_newest(record: bytes | None, tail: Tail) -> bytes:
    """The record once this tail is stored: the oldest one leaves, an unreadable record is begun
    anew."""
    others = [other for other in decode_record(record or b"") or [] if other != tail]
    return encode_record([tail, *others[: MAX_TAILS - 1]])


def longest_match(
    tails: Iterable[Tail], parent: bytes | None, tokens: Sequence[int]
) -> Tail | None:
    """The longest of `tails` that holds exactly the first of `tokens`, by its own digest.

    So a record of another branch, page or tenant is a miss, never another's KV.
    """
    fitting = [tail for tail in tails if 0 < tail.num_tokens <= len(tokens)]
    for tail in sorted(fitting, reverse=True):
        if tail_key(parent, tokens[: tail.num_tokens]) == tail.key:
            return tail
    return None

"""Page keys: one chained SHA-256 digest for each full page of a token sequence.

A key names its page and everything before it, so equal keys mean equal prefixes under equal seeds.
The definition and its test vectors are in docs/page-keys.md.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Sequence

KEY_BYTES = 32

_SEED_DOMAIN = b"sglang-cache-namespace-v1"
_TOKEN_BYTES = 4


def cache_seed(tenant: str | None, salt: str | None) -> bytes | None:
    """Digest that starts the chain of a tenant's sequences; None where both are unset.

    An empty string is a value of its own, unlike None.
    """
    if tenant is None and salt is None:
        return None
    return hashlib.sha256(_SEED_DOMAIN + _field(tenant) + _field(salt)).digest()


def page_keys(
    tokens: Sequence[int],
    page_size: int,
    seed: bytes | None = None,
    parent: bytes | None = None,
) -> list[bytes]:
    """Return the 32-byte keys of the full pages of `tokens`, in order.

    `parent` is the key of the page before `tokens` and continues its chain; without it the chain
    starts from `seed`. Raises ValueError for a token outside 0 .. 2**32 - 1.
    """
    if page_size <= 0:
        raise ValueError(f"page_size must be positive, got {page_size}")
    num_pages = len(tokens) // page_size
    data = token_bytes(tokens[: num_pages * page_size])
    step = page_size * _TOKEN_BYTES
    digest = (parent if parent is not None else seed) or b""
    keys = []
    for start in range(0, num_pages * step, step):
        digest = hashlib.sha256(digest + data[start : start + step]).digest()
        keys.append(digest)
    return keys


def token_bytes(tokens: Sequence[int]) -> bytes:
    """Tokens as keys digest them; raises ValueError for one outside 0 .. 2**32 - 1."""
    try:
        words = array("I", tokens)
    except OverflowError:
        raise ValueError("tokens must be within 0 .. 2**32 - 1") from None
    assert words.itemsize == _TOKEN_BYTES
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def _field(value: str | None) -> bytes:
    if value is None:
        return b"\x00"
    data = value.encode()
    return b"\x01" + len(data).to_bytes(8, "little") + data

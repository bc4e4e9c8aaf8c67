"""What the router asks of nodes about a canary's pages: `POST {node}/kvloop/verify_pages`.

A question names a nonce and never a cache seed: nobody can ask for, or remove, any other page
than a canary's.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kvloop.shared_cache.keys import cache_seed
from kvloop.shared_cache.wire import Role, Struct

VERIFY_PATH = "/kvloop/verify_pages"
MAX_PAGES = 64
"""Of one question."""
MAX_DEVICE_PAGES = 16
"""Of one that has them computed: requests wait meanwhile."""

Look = Literal["exists", "read", "remove", "device"]
"""exists: does L3 hold it; read: does what L3 holds check; remove: from L3, and the tail behind the
pages too; device: is the KV that a decode node holds what it computes itself."""

PageResult = Literal["there", "missing", "good", "damaged", "unread", "removed"]
"""there, missing: of `exists`; good, damaged, missing, unread (no host page was free): of `read`;
removed, missing: of `remove`."""


class PageQuestion(Struct, frozen=True, kw_only=True):
    """About the full pages of `tokens`, in order."""

    nonce: str
    """The canary's own; its pages' keys start from `canary_seed(nonce)`."""
    tokens: list[int]
    look: Look


class StoredPage(Struct, frozen=True, kw_only=True):
    """One page as L3 has it."""

    result: PageResult
    writer: Role | None = None
    """By the trailer; of a good page."""
    is_zero: bool = False
    """Every byte of the payload; of a good page."""


class DevicePage(Struct, frozen=True, kw_only=True):
    """One page that a decode node holds, beside the same tokens computed by that node alone."""

    error: float
    """Norm of the difference over the norm of what was computed, in the worst layer, of K or V."""
    layer: int
    """That layer."""
    is_zero: bool
    """Every byte, in all layers."""


class PageReply(Struct, frozen=True, kw_only=True):
    """How the node's L3 stands, and what was asked for; what was not asked for is empty."""

    page_size: int
    launched_with: str | None
    """The backend named at the node's launch."""
    backend: str
    state: str
    """attached | detached | attaching | draining | open"""
    last_error: str | None = None
    stored: tuple[StoredPage, ...] = ()
    """Of `remove` one entry more for the tail, where the node stores tails and one is due."""
    device: tuple[DevicePage, ...] = ()
    """Of the leading pages that the node holds; empty where it holds none."""
    problem: str | None = None
    """Why the node could not look; None where it did."""


def canary_seed(nonce: str) -> bytes:
    """What a canary's page keys start from: of no tenant, under a salt of its own."""
    seed = cache_seed(None, f"kvloop-canary-{nonce}")
    assert seed is not None
    return seed


def parse_question(body: bytes) -> PageQuestion:
    """Raises ValueError in words."""
    try:
        question = msgspec.json.decode(body, type=PageQuestion)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a PageQuestion: {error}") from None
    if not 0 < len(question.nonce) <= 64:
        raise ValueError(f"nonce must have 1 to 64 characters, got {len(question.nonce)}")
    if any(not 0 <= token < 1 << 32 for token in question.tokens):
        raise ValueError("tokens must be within 0 .. 2**32 - 1")
    return question

"""Where each prompt token came from: pure accounting, exactly one source a token."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.shared_cache.hicache_parts import PageSource
from kvloop.shared_cache.wire import PromptSources, Role


def prompt_sources(
    *,
    num_tokens: int,
    page_size: int,
    pages: Sequence[PageSource],
    num_held_pages: int,
    tail_tokens: int = 0,
    tail_writer: Role = "decode",
) -> PromptSources:
    """`pages` are the leading ones that were found in a tier, and `tail_tokens` of the next page
    were found in L3; the rest is computed.

    A page that decode holds and prefill had cached needed no transfer: `transfer_skipped`. One that
    prefill computed all the same was paid for, and counts as computed.
    """
    received = pages[num_held_pages:]
    by_prefill = received.count("prefill") * page_size
    by_decode = received.count("decode") * page_size
    is_held = len(pages) < num_held_pages
    by_prefill += 0 if is_held or tail_writer == "decode" else tail_tokens
    by_decode += 0 if is_held or tail_writer == "prefill" else tail_tokens
    sources = PromptSources(
        computed=num_tokens - len(pages) * page_size - tail_tokens,
        device=received.count("device") * page_size,
        host=received.count("host") * page_size,
        storage=by_prefill + by_decode,
        transfer_skipped=(len(pages) - len(received)) * page_size + is_held * tail_tokens,
        storage_by_prefill=by_prefill,
        storage_by_decode=by_decode,
    )
    assert sources.computed > 0
    return sources

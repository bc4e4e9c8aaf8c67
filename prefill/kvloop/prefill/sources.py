"""Where each prompt token came from: pure accounting, exactly one source a token."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.shared_cache.hicache_parts import PageSource
from kvloop.shared_cache.wire import PromptSources


def prompt_sources(
    *, num_tokens: int, page_size: int, pages: Sequence[PageSource], num_held_pages: int
) -> PromptSources:
    """`pages` are the leading ones that were found in a tier; the rest is computed.

    A page that decode holds and prefill had cached needed no transfer: `transfer_skipped`. One that
    prefill computed all the same was paid for, and counts as computed.
    """
    received = pages[num_held_pages:]
    by_prefill = received.count("prefill") * page_size
    by_decode = received.count("decode") * page_size
    sources = PromptSources(
        computed=num_tokens - len(pages) * page_size,
        device=received.count("device") * page_size,
        host=received.count("host") * page_size,
        storage=by_prefill + by_decode,
        transfer_skipped=(len(pages) - len(received)) * page_size,
        storage_by_prefill=by_prefill,
        storage_by_decode=by_decode,
    )
    assert sources.computed > 0
    return sources

"""Where each prompt token came from: pure accounting, exactly one source a token."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.shared_cache.wire import PromptSources, Role


def prompt_sources(
    *,
    num_tokens: int,
    page_size: int,
    num_device_pages: int,
    writers: Sequence[Role],
    num_held_pages: int,
) -> PromptSources:
    """Device pages come first, then one storage page for each of `writers`; the rest is computed.

    A page that decode holds and prefill had cached needed no transfer: `transfer_skipped`. One that
    prefill computed all the same was paid for, and counts as computed.
    """
    page_writers: list[Role | None] = [None] * num_device_pages + list(writers)
    received = page_writers[num_held_pages:]
    by_prefill = received.count("prefill") * page_size
    by_decode = received.count("decode") * page_size
    sources = PromptSources(
        computed=num_tokens - len(page_writers) * page_size,
        device=received.count(None) * page_size,
        storage=by_prefill + by_decode,
        transfer_skipped=(len(page_writers) - len(received)) * page_size,
        storage_by_prefill=by_prefill,
        storage_by_decode=by_decode,
    )
    assert sources.computed > 0
    return sources

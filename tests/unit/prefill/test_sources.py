"""Every prompt token has exactly one source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.prefill.sources import prompt_sources
from kvloop.shared_cache.wire import PromptSources


def test_each_page_counts_for_the_tier_it_was_found_in_and_the_rest_is_computed() -> None:
    assert prompt_sources(
        num_tokens=86,
        page_size=16,
        pages=["device", "host", "prefill", "decode"],
        num_held_pages=0,
    ) == PromptSources(
        computed=22, device=16, host=16, storage=32, storage_by_prefill=16, storage_by_decode=16
    )


def test_pages_that_decode_holds_are_skipped_transfers_not_reuse_of_storage() -> None:
    sources = prompt_sources(
        num_tokens=70, page_size=16, pages=["device", "decode", "decode"], num_held_pages=2
    )
    assert (sources.transfer_skipped, sources.storage, sources.device) == (32, 16, 0)


def test_a_page_that_prefill_had_to_compute_counts_as_computed_though_decode_holds_it() -> None:
    sources = prompt_sources(num_tokens=70, page_size=16, pages=["device"], num_held_pages=3)
    assert (sources.transfer_skipped, sources.computed) == (16, 54)


@pytest.mark.parametrize("writer", ["prefill", "decode"])
def test_a_tails_tokens_are_reuse_of_storage_by_its_writer(writer) -> None:
    sources = prompt_sources(
        num_tokens=70,
        page_size=16,
        pages=["device", writer],
        num_held_pages=2,
        tail_tokens=5,
        tail_writer=writer,
    )
    assert (sources.storage, sources.computed, sources.transfer_skipped) == (5, 33, 32)
    assert getattr(sources, f"storage_by_{writer}") == 5


def test_a_tail_of_a_page_that_decode_holds_is_a_skipped_transfer() -> None:
    sources = prompt_sources(
        num_tokens=70, page_size=16, pages=["decode"], num_held_pages=2, tail_tokens=5
    )
    assert (sources.storage, sources.computed, sources.transfer_skipped) == (0, 49, 21)


@given(
    st.integers(1, 8),
    st.lists(st.sampled_from(["device", "host", "prefill", "decode"])),
    st.integers(0, 20),
    st.integers(1, 50),
    st.integers(0, 7),
)
def test_the_five_sources_sum_to_the_prompt(page_size, pages, held, rest, tail) -> None:
    num_tokens = len(pages) * page_size + tail + rest
    s = prompt_sources(
        num_tokens=num_tokens,
        page_size=page_size,
        pages=pages,
        num_held_pages=held,
        tail_tokens=tail,
    )
    assert s.computed + s.device + s.host + s.storage + s.transfer_skipped == num_tokens
    assert s.storage == s.storage_by_prefill + s.storage_by_decode

"""The router's index as events change it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvloop.router.prefix_index import PrefixIndex
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.tree_node import Tier

KEYS = page_keys([1, 2, 3, 4], 1)


def test_a_removed_page_ends_the_run_before_it() -> None:
    index = PrefixIndex(100)
    index.stored("a", KEYS, Tier.DEVICE)
    index.removed("a", [KEYS[2]], Tier.DEVICE)
    assert index.leading_pages(KEYS) == {"a": 2} and len(index) == index.num_pages("a") == 3


def test_a_page_is_held_until_it_has_left_every_tier() -> None:
    index = PrefixIndex(100)
    for tier in (Tier.DEVICE, Tier.HOST):
        index.stored("a", KEYS, tier)
    index.removed("a", KEYS, Tier.DEVICE)
    assert index.leading_pages(KEYS) == {"a": 4}
    index.removed("a", KEYS[1:], Tier.HOST)
    assert index.leading_pages(KEYS) == {"a": 1}


def test_a_removal_without_a_tier_is_from_all() -> None:
    index = PrefixIndex(100)
    index.stored("a", KEYS, Tier.HOST)
    index.record(KEYS, "a")
    index.removed("a", KEYS[3:], None)
    assert index.leading_pages(KEYS) == {"a": 3}


def test_events_correct_what_was_routed() -> None:
    index = PrefixIndex(100)
    index.record(KEYS, "a")
    index.removed("a", KEYS, Tier.DEVICE)
    assert index.leading_pages(KEYS) == {} and len(index) == 0


def test_a_node_is_forgotten_alone() -> None:
    index = PrefixIndex(100)
    for node in "ab":
        index.record(KEYS, node)
    assert index.forget("a") == 4 and index.forget("a") == 0
    assert index.leading_pages(KEYS) == {"b": 4} and len(index) == 4
    index.removed("a", KEYS, None)  # of a node that nothing is known of
    assert index.clear() == 4 and len(index) == 0


def test_of_a_full_index_the_end_of_the_oldest_run_goes_first() -> None:
    index, other = PrefixIndex(6), page_keys([9, 8, 7], 1)
    index.record(KEYS, "a")
    index.record(other, "a")
    assert index.leading_pages(KEYS) == {"a": 3} and index.leading_pages(other) == {"a": 3}
    index.record(KEYS[:3], "a")
    index.record(page_keys([5, 6], 1), "a")
    assert index.leading_pages(KEYS) == {"a": 3} and index.leading_pages(other) == {"a": 1}


def test_nodes_that_nobody_hears_of_any_more_are_forgotten_at_last() -> None:
    index = PrefixIndex(10_000)
    for number in range(300):
        index.record(KEYS, f"node {number}")
        index.record(KEYS, "a")
    held = index.leading_pages(KEYS)
    assert len(held) == 256 and "a" in held and "node 0" not in held
    assert len(index) == 4 * 256


_STEPS = st.tuples(
    st.sampled_from(["stored", "removed", "record", "forget"]),
    st.sampled_from("ab"),
    st.sampled_from([Tier.DEVICE, Tier.HOST]),
    st.integers(0, 3),
    st.integers(1, 4),
)


@given(st.lists(_STEPS, max_size=50))
def test_the_index_holds_what_a_set_of_pages_and_tiers_does(
    steps: list[tuple[str, str, Tier, int, int]],
) -> None:
    index, model = PrefixIndex(100), set[tuple[str, Tier, bytes]]()
    for what, node, tier, first, end in steps:
        keys = KEYS[first:end]
        if what == "stored":
            index.stored(node, keys, tier)
            model |= {(node, tier, key) for key in keys}
        elif what == "removed":
            index.removed(node, keys, tier)
            model -= {(node, tier, key) for key in keys}
        elif what == "record":
            index.record(KEYS[:end], node)
            model |= {(node, Tier.DEVICE, key) for key in KEYS[:end]}
        else:
            index.forget(node)
            model = {page for page in model if page[0] != node}
    for node in "ab":
        held = {key for holder, _, key in model if holder == node}
        run = next((i for i, key in enumerate(KEYS) if key not in held), len(KEYS))
        assert index.leading_pages(KEYS).get(node, 0) == run
        assert index.num_pages(node) == len(held)
    assert len(index) == len({(node, key) for node, _, key in model})

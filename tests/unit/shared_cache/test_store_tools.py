"""Which stores a tool works on, what a listing says, and which pages go first."""

from __future__ import annotations

import tracemalloc

import pytest

from kvloop.shared_cache.backend import StoredObject
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.store_tools.address import StoreAddress, leaves, tiers
from kvloop.shared_cache.store_tools.evicting import beyond, unused_since
from kvloop.shared_cache.store_tools.listing import ListedPage, by_use, listings

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=2, head_size=8, itemsize=2, head_groups=2)
NS = b"n" * 32
KEYS = [bytes([i]) * 32 for i in range(100)]


def test_a_store_made_of_others_is_known_by_its_leaves_the_nearest_first() -> None:
    file = {"backend": "file", "config": {"root": "/a"}}
    zones = {"zone": "z", "local": file, "central": {"backend": "mooncake", "config": {}}}
    chain = StoreAddress(
        backend="chain",
        config={"near": file, "far": {"backend": "zones", "config": zones}},
        dynamic_modules=("m",),
    )
    assert [(name, leaf.backend) for name, leaf in leaves(chain)] == [
        ("near", "file"),
        ("far.local", "file"),
        ("far.central", "mooncake"),
    ]
    assert all(leaf.dynamic_modules == ("m",) for _, leaf in leaves(chain))
    assert [name for name, _ in tiers(chain)] == ["near", "far"]


@pytest.mark.parametrize("config", [{}, {"near": 3, "far": {}}, {"near": {"backend": "file"}}])
def test_a_wrongly_written_chain_is_left_to_its_backend(config: dict[str, object]) -> None:
    chain = StoreAddress(backend="chain", config=config)
    assert leaves(chain) == [("", chain)]


def stored(key: bytes, group: int, size: int = 10, used: float | None = None) -> StoredObject:
    return StoredObject(NS, key, group, size, used)


def test_a_listing_puts_the_groups_of_a_page_together() -> None:
    found = listings([stored(KEYS[0], 1, 10, 5.0), stored(KEYS[0], 0, 12, 7.0)])
    page = found[NS].pages[KEYS[0]]
    assert (page.num_groups, page.num_bytes, page.used_at) == (2, 22, 7.0)
    assert page.is_complete(2) and not page.is_complete(3)


def test_an_object_listed_twice_counts_once() -> None:
    found = listings([stored(KEYS[0], 0), stored(KEYS[0], 0)])
    assert found[NS].num_bytes == 10


def test_a_page_with_a_gap_in_its_groups_is_not_complete() -> None:
    found = listings([stored(KEYS[0], 0), stored(KEYS[0], 2)])
    assert not found[NS].pages[KEYS[0]].is_complete(2)


def test_records_are_counted_beside_pages() -> None:
    found = listings([StoredObject(NS, None, 0, 7, None), stored(KEYS[0], 0)])
    assert (found[NS].num_records, found[NS].num_bytes, len(found[NS].pages)) == (1, 17, 1)


def test_a_page_of_another_length_does_not_fit() -> None:
    size = SHAPE.object_bytes
    sizes = stored(KEYS[0], 0, size), stored(KEYS[0], 1, size - 1), stored(KEYS[1], 0, size)
    found = listings(sizes)
    assert not found[NS].pages[KEYS[0]].fits(SHAPE)
    assert found[NS].pages[KEYS[1]].fits(SHAPE)


def test_pages_of_unknown_use_come_last() -> None:
    used: dict[bytes, float | None] = {KEYS[0]: None, KEYS[1]: 9.0, KEYS[2]: 3.0}
    pages = [ListedPage(namespace=NS, key=key, used_at=at) for key, at in used.items()]
    assert [page.key for page in by_use(pages)] == [KEYS[2], KEYS[1], KEYS[0]]


def listed(*uses: float | None, size: int = 10) -> list[ListedPage]:
    return [
        ListedPage(namespace=NS, key=KEYS[i], num_bytes=size, used_at=at)
        for i, at in enumerate(uses)
    ]


def keys_of(pages: list[ListedPage]) -> list[bytes]:
    return [page.key for page in pages]


def test_old_pages_are_those_last_used_before() -> None:
    assert keys_of(unused_since(listed(5.0, 1.0, None, 3.0), before=4.0)) == [KEYS[1], KEYS[3]]


def test_as_many_go_as_must_and_the_last_used_stay() -> None:
    pages = listed(5.0, 1.0, None, 3.0)
    assert keys_of(beyond(pages, 40)) == []
    assert keys_of(beyond(pages, 39)) == [KEYS[1]]
    assert keys_of(beyond(pages, 20)) == [KEYS[1], KEYS[3]]
    assert len(beyond(pages, 0)) == 4


def test_an_object_that_is_just_being_written_is_not_there_yet() -> None:
    found = listings([stored(KEYS[0], 0, 10), stored(KEYS[0], 1, 0)])
    page = found[NS].pages[KEYS[0]]
    assert not page.is_complete(2) and page.smallest == 10


def test_a_listed_page_takes_less_than_half_a_kilobyte() -> None:
    keys = [i.to_bytes(32, "big") for i in range(20_000)]
    tracemalloc.start()
    found = listings(stored(key, 0, 5000 + i, 1e9 + i) for i, key in enumerate(keys))
    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    key_bytes = 65  # that were allocated before
    assert num_bytes / len(found[NS].pages) + key_bytes < 512

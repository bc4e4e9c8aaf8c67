"""A chain of two stores: each serves what it has, and neither stands in the other's way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from two_stores import BROKEN, NAMESPACE, STALLED, FrailStore, Slots, until

from kvloop.shared_cache.backends.chain.backend import ChainBackend
from kvloop.shared_cache.backends.chain.config import ChainConfig
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.storage_errors import StorageUnavailable

KEYS = [bytes([i + 1]) * 32 for i in range(6)]
INNER = {"backend": "file", "config": {"root": "r"}}
Make = Callable[..., ChainBackend]


@pytest.fixture
def near() -> FrailStore:
    return FrailStore()


@pytest.fixture
def far() -> FrailStore:
    return FrailStore()


@pytest.fixture
def slots() -> Slots:
    return Slots()


@pytest.fixture
def make(near: FrailStore, far: FrailStore, slots: Slots) -> Iterator[Make]:
    made: list[ChainBackend] = []

    def make_chain(**fields: Any) -> ChainBackend:
        fields = {"near_deadline_s": 0.2, "far_deadline_s": 0.4, **fields}
        config = msgspec.convert({"near": INNER, "far": INNER, **fields}, ChainConfig)
        openers = near.opener(slots.pool), far.opener(slots.pool)
        made.append(ChainBackend(config, *openers, slots.pool, NAMESPACE))
        return made[-1]

    yield make_chain
    near.heal()
    far.heal()
    for chain in made:
        chain.close()


def test_a_set_reaches_both_stores(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    assert make().set(KEYS, slots.filled(KEYS)) == [True] * 6
    assert near.keys() == far.keys() == set(KEYS)


def test_pages_are_read_from_the_near_store_and_the_rest_from_the_far_one(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make(promote=False)
    near.plant(KEYS[0])
    for key in KEYS[1:3]:
        far.plant(key)
    read = slots.blank(4)
    assert chain.exists(KEYS[:4]) == [True, True, True, False]
    assert chain.get(KEYS[:4], read) == [True, True, True, False]
    assert slots.hold(read[:3], KEYS[:3])
    assert chain.stats()["near_hits"] == 1 and chain.stats()["far_hits"] == 2


def test_what_is_near_asks_nothing_of_the_far_store(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make()
    near.plant(KEYS[0])
    before = far.num_calls
    assert chain.exists(KEYS[:1]) == chain.get(KEYS[:1], slots.blank(1)) == [True]
    assert far.num_calls == before


def test_a_page_read_from_afar_is_near_the_next_time(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make()
    far.plant(KEYS[0])
    read = slots.blank(1)
    assert chain.get(KEYS[:1], read) == [True]
    slots.pool.free(read)
    until("the promotion", lambda: near.keys() == {KEYS[0]})
    until("its slot", lambda: slots.pool.num_free == slots.pool.num_slots)
    assert chain.get(KEYS[:1], slots.blank(1)) == [True]
    assert chain.stats()["near_hits"] == chain.stats()["promoted"] == 1


def test_without_promote_nothing_is_promoted(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make(promote=False)
    far.plant(KEYS[0])
    assert chain.get(KEYS[:1], slots.blank(1)) == [True]
    chain.close()
    assert near.keys() == set()


def test_a_damaged_page_is_not_promoted(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make()
    far.plant(KEYS[0], damaged=True)
    far.plant(KEYS[1])
    assert chain.get(KEYS[:2], slots.blank(2)) == [True, True]
    until("the other's promotion", lambda: near.keys() == {KEYS[1]})
    assert chain.stats()["damaged"] == 1


def test_promotions_hold_the_slots_until_they_are_done(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make(near_deadline_s=30.0)
    far.plant(KEYS[0])
    near.suffer(STALLED)  # the get is refused at first, and then the write hangs
    chain._near.get = lambda keys, slots: [False] * len(keys)  # type: ignore[method-assign]
    read = slots.blank(1)
    assert chain.get(KEYS[:1], read) == [True]
    slots.pool.free(read)
    assert slots.pool.num_free == slots.pool.num_slots - 1
    near.heal()
    until("the freed slot", lambda: slots.pool.num_free == slots.pool.num_slots)
    assert near.keys() == {KEYS[0]}


def test_too_many_promotions_are_dropped_and_counted(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make(promote_queue_pages=2)
    for key in KEYS[:5]:
        far.plant(key)
    assert chain.get(KEYS[:5], slots.blank(5)) == [True] * 5
    until("two promotions", lambda: chain.stats()["promoted"] == 2)
    assert chain.stats()["promotions_dropped"] == 3 and near.keys() == set(KEYS[:2])


def test_promotions_never_wait_for_more_than_a_quarter_of_the_pool(
    make: Make, far: FrailStore, slots: Slots
) -> None:
    chain = make(promote_queue_pages=1000)
    keys = [bytes([i + 100]) * 32 for i in range(20)]
    for key in keys:
        far.plant(key)
    assert chain.get(keys, slots.blank(20)) == [True] * 20
    assert chain.stats()["promotions_dropped"] == 20 - 32 // 4


def test_a_page_is_stored_once_the_far_store_has_it_though_the_near_one_is_down(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make()
    near.suffer(BROKEN)
    for key in KEYS[:4]:
        assert chain.set([key], slots.filled([key])) == [True]
    assert far.keys() == set(KEYS[:4]) and near.keys() == set()
    assert chain.exists(KEYS[:5]) == [True] * 4 + [False]
    read = slots.blank(4)
    assert chain.get(KEYS[:4], read) == [True] * 4 and slots.hold(read, KEYS[:4])


def test_a_page_that_only_the_near_store_took_is_not_stored(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make()
    far.suffer(BROKEN)
    assert chain.set(KEYS[:1], slots.filled(KEYS[:1])) == [False]
    assert near.keys() == {KEYS[0]}
    assert chain.get(KEYS[:1], slots.blank(1)) == [True]  # though it serves from there
    assert chain.exists(KEYS[:2]) == [True, False]


def test_a_stalled_near_store_costs_one_deadline_and_then_nothing(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make()
    far.plant(KEYS[0])
    near.suffer(STALLED)
    read = slots.blank(1)
    assert chain.get(KEYS[:1], read) == [False]  # its late write may still come to this slot
    assert chain.stats()["near_stalled_pages"] == 1
    assert chain._near.is_using(read)
    assert chain.stats()["near_up"] == 0
    again = slots.blank(1)
    assert chain.get(KEYS[:1], again) == [True] and slots.hold(again, KEYS[:1])


def test_each_store_has_the_deadline_that_was_set_for_it(make: Make) -> None:
    chain = make(near_deadline_s=0.25, far_deadline_s=0.75)
    tiers = (chain._near, chain._far)
    assert [tier._guard._shared.config.deadline_s for tier in tiers] == [0.25, 0.75]


def test_a_stalled_far_store_leaves_what_is_near(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make()
    near.plant(KEYS[0])
    far.suffer(STALLED)
    read = slots.blank(2)
    assert chain.get(KEYS[:2], read) == [True, False] and slots.hold(read[:1], KEYS[:1])
    assert chain.exists(KEYS[:2]) == [True, False]


def test_a_store_that_comes_back_is_used_again(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make()
    near.suffer(BROKEN)
    chain.exists(KEYS)
    chain.exists(KEYS)
    assert chain.stats()["near_up"] == 0
    near.heal()
    until("the near store", lambda: chain.stats()["near_up"] == 1)
    assert chain.set(KEYS[:1], slots.filled(KEYS[:1])) == [True]
    assert near.keys() == {KEYS[0]}


def test_with_both_stores_down_the_chain_is_unavailable(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make()
    near.suffer(BROKEN)
    far.suffer(BROKEN)
    read = slots.blank(1)
    calls: list[Callable[[], object]] = [
        lambda: chain.exists(KEYS[:1]),
        lambda: chain.get(KEYS[:1], read),
        lambda: chain.set(KEYS[:1], read),
        lambda: chain.delete(KEYS[:1]),
        lambda: chain.get_small("record"),
        chain.clear,
        chain.probe,
    ]
    for call in calls:
        with pytest.raises(StorageUnavailable, match="storage backend 'chain'"):
            call()
    assert chain.put_small("record", b"") is False


def test_it_opens_over_one_store_and_not_over_none(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    near.suffer(BROKEN)
    assert make().set(KEYS[:1], slots.filled(KEYS[:1])) == [True]
    far.suffer(BROKEN)
    with pytest.raises(StorageUnavailable, match="near: cannot open; far: cannot open"):
        make()


def test_a_delete_reaches_both_stores_and_any_promotion(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make()
    for key in KEYS:
        far.plant(key)
    for _ in range(20):
        read = slots.blank(6)
        assert chain.get(KEYS, read) == [True] * 6
        slots.pool.free(read)
        assert chain.delete(KEYS) == [True] * 6
        assert chain.exists(KEYS) == [False] * 6
        for key in KEYS:
            far.plant(key)


def test_a_damaged_near_copy_goes_and_the_far_one_is_read_next(
    make: Make, near: FrailStore, far: FrailStore, slots: Slots
) -> None:
    chain = make(promote=False)
    for key in KEYS[:2]:
        far.plant(key)
    near.plant(KEYS[0])
    assert chain.discard(KEYS[:1]) == [True]
    assert near.keys() == set() and far.keys() == set(KEYS[:2])
    read = slots.blank(1)
    assert chain.get(KEYS[:1], read) == [True] and slots.hold(read, KEYS[:1])


def test_a_damaged_far_copy_goes_where_near_has_none(
    make: Make, near: FrailStore, far: FrailStore
) -> None:
    chain = make()
    near.plant(KEYS[0])
    for key in KEYS[:2]:
        far.plant(key)
    assert chain.discard(KEYS[:3]) == [True, True, False]
    assert near.keys() == set() and far.keys() == {KEYS[0]}


def test_records_are_the_far_stores_and_the_near_one_stands_in(
    make: Make, near: FrailStore, far: FrailStore
) -> None:
    chain, other = make(), make()
    assert chain.put_small("record", b"one") and near.records() == far.records()
    far._openings[0].put_small("record", b"newer")
    assert chain.get_small("record") == b"newer"
    far.suffer(BROKEN)
    assert other.get_small("record") == b"one"
    assert other.get_small("unknown") is None
    assert chain.put_small("record", b"lost") is False and near.records() == {"record": b"one"}


def test_opening_writes_no_record_to_either_store(
    make: Make, near: FrailStore, far: FrailStore
) -> None:
    make().exists(KEYS)
    assert near.records() == far.records() == {}


def test_each_object_is_listed_once_wherever_it_is(
    make: Make, near: FrailStore, far: FrailStore
) -> None:
    chain = make()
    near.plant(KEYS[0])
    near.plant(KEYS[1])
    far.plant(KEYS[1])
    far.plant(KEYS[2])
    chain.put_small("record", b"x")
    found = [(o.key, o.group) for o in chain.objects()]
    assert len(found) == len(set(found)) == 7
    assert {key for key, _ in found} == {None, *KEYS[:3]}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"near": INNER}, "lacks the field 'far'"),
        ({"near": INNER, "far": INNER}, "near and far are the same store"),
        ({"near": INNER, "far": {"backend": "tape"}}, "far: unknown storage backend 'tape'"),
        ({"near": {"backend": "file", "config": {}}, "far": INNER}, "near: storage backend 'file'"),
        ({"near": {"backend": "file", "root": "r"}, "far": INNER}, "unknown field `root`"),
        ({"near": INNER, "far": INNER, "promote_queue_pages": 0}, "promote_queue_pages"),
        ({"near": INNER, "far": INNER, "near_deadline_s": 0}, "near_deadline_s"),
        ({"near": INNER, "far": INNER, "far_deadline_s": "x"}, "far_deadline_s"),
        ({"near": INNER, "far": INNER, "middle": INNER}, "unknown field 'middle'"),
        ({"near": INNER, "far": {"backend": "dynamic", "config": {
            "backend_name": "x", "module_path": "not.allowed", "class_name": "X"}}},
         "far: storage backend 'dynamic': module_path 'not.allowed' is not among"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_refused_at_once_and_named(
    fields: dict[str, Any], words: str, slots: Slots
) -> None:
    with pytest.raises(ConfigError) as caught:
        backend_opener("chain", fields, slots.pool, NAMESPACE)
    assert words in str(caught.value)


def test_allowed_modules_are_handed_on_to_the_inner_backends(slots: Slots, tmp_path: Path) -> None:
    dynamic = {
        "backend_name": "reference",
        "module_path": "reference_store",
        "class_name": "ReferenceBackend",
        "store": tmp_path.name,
    }
    near = {"backend": "file", "config": {"root": str(tmp_path)}}
    fields = {"near": near, "far": {"backend": "dynamic", "config": dynamic}}
    opener = backend_opener("chain", fields, slots.pool, NAMESPACE, ("reference_store",))
    chain = opener()
    assert chain.set(KEYS, slots.filled(KEYS)) == [True] * 6
    chain.close()

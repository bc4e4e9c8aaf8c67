"""Classes that only have SGLang's storage interface, as backend `dynamic`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from dynamic_backends.odd_classes import BadObject, InMemory

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape, object_name
from kvloop.shared_cache.storage_errors import StorageUnavailable

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=2, head_size=8, itemsize=2, head_groups=2)
NAMESPACE = secrets.token_bytes(32)
MODULE = "dynamic_backends.odd_classes"
KEYS = [bytes([i]) * 32 for i in range(4)]


@pytest.fixture
def pool() -> HostPool:
    pool = HostPool(SHAPE, 8)
    for slot in range(8):
        pool.view(slot)[:] = os.urandom(SHAPE.slot_bytes)
    return pool


@pytest.fixture(autouse=True)
def forget_classes() -> Iterator[None]:
    InMemory.made.clear()
    yield
    BadObject.bad, BadObject.is_down = "never", False


def opener(pool: HostPool, class_name: str, **fields: Any) -> Any:
    named = {"backend_name": "odd", "module_path": MODULE, "class_name": class_name}
    return backend_opener("dynamic", {**named, **fields}, pool, NAMESPACE, [MODULE])


def opened(pool: HostPool, class_name: str, **fields: Any) -> StorageBackend:
    backend: StorageBackend = opener(pool, class_name, **fields)()
    return backend


@pytest.mark.parametrize("class_name", ["InMemory", "Batches", "FillsInPlace"])
def test_pages_come_back_whatever_way_the_class_answers(pool: HostPool, class_name: str) -> None:
    backend = opened(pool, class_name)
    assert backend.set(KEYS[:3], [0, 1, 2]) == [True] * 3
    assert backend.get(KEYS, [4, 5, 6, 7]) == [True, True, True, False]
    for slot in range(3):
        assert bytes(pool.view(slot)) == bytes(pool.view(4 + slot))
    assert backend.exists([KEYS[3], *KEYS[:3]]) == [False, True, True, True]


def test_each_head_group_is_a_key_of_the_class(pool: HostPool) -> None:
    opened(pool, "InMemory").set(KEYS[:1], [0])
    names = {object_name(NAMESPACE, KEYS[0], group) for group in range(2)}
    assert set(InMemory.made[0].values) == names


def test_the_class_is_given_the_whole_extra_config_and_one_rank(pool: HostPool) -> None:
    opened(pool, "InMemory", flavour="mint")
    config = InMemory.made[0].config
    assert config.extra_config["flavour"] == "mint"
    assert config.extra_config["class_name"] == "InMemory"
    assert (config.tp_rank, config.tp_size, config.is_storage_writer) == (0, 1, True)


def test_batch_calls_are_used_where_the_class_has_them(pool: HostPool) -> None:
    backend = opened(pool, "Batches")
    backend.set(KEYS, [0, 1, 2, 3])
    backend.get(KEYS, [4, 5, 6, 7])
    made: Any = InMemory.made[0]
    assert made.num_calls == {"set": 1, "get": 1, "exists": 1}


def test_a_key_that_comes_twice_is_asked_for_once_and_read_into_both_slots(pool: HostPool) -> None:
    backend = opened(pool, "NoTwins")
    assert backend.set([KEYS[0], KEYS[1], KEYS[0]], [0, 1, 2]) == [True] * 3
    assert backend.get([KEYS[0], KEYS[1], KEYS[0]], [4, 5, 6]) == [True] * 3
    for slot, source in ((4, 0), (5, 1), (6, 0)):
        assert bytes(pool.view(slot)) == bytes(pool.view(source))


def test_an_answer_of_another_length_is_a_miss(pool: HostPool) -> None:
    backend = opened(pool, "WrongLength")
    backend.set(KEYS[:1], [0])
    assert backend.get(KEYS[:1], [1]) == [False]


def test_the_first_set_wins_over_a_class_that_overwrites(pool: HostPool) -> None:
    backend = opened(pool, "InMemory")
    assert backend.set(KEYS[:1], [0]) == backend.set(KEYS[:1], [1]) == [True]
    backend.get(KEYS[:1], [2])
    assert bytes(pool.view(2)) == bytes(pool.view(0))


def test_what_the_class_refuses_is_not_stored(pool: HostPool) -> None:
    backend = opened(pool, "Refuses")
    assert backend.set(KEYS[:2], [0, 1]) == [False, False]
    assert backend.stats()["refused_writes"] == 4


def test_one_object_that_the_class_fails_on_is_a_counted_miss(pool: HostPool) -> None:
    backend = opened(pool, "BadObject")
    backend.set(KEYS, [0, 1, 2, 3])
    BadObject.bad = f"{KEYS[1].hex()}-1"
    assert backend.get(KEYS, [4, 5, 6, 7]) == [True, False, True, True]
    assert backend.stats()["failed_objects"] == 1


def test_a_single_page_that_the_class_fails_on_is_a_miss_too(pool: HostPool) -> None:
    backend = opened(pool, "BadObject")
    backend.set(KEYS[:1], [0])
    BadObject.bad = f"-{KEYS[0].hex()}-0"
    assert backend.get(KEYS[:1], [1]) == [False]


def test_a_class_that_fails_on_everything_is_unavailable(pool: HostPool) -> None:
    backend = opened(pool, "BadObject")
    BadObject.is_down = True
    for call in (
        lambda: backend.exists(KEYS),
        lambda: backend.get(KEYS, [0, 1, 2, 3]),
        lambda: backend.set(KEYS, [0, 1, 2, 3]),
        lambda: backend.get_small("epoch"),
    ):
        with pytest.raises(StorageUnavailable, match="OSError: on purpose"):
            call()


def test_a_count_of_existing_keys_that_cannot_be_is_a_fault(pool: HostPool) -> None:
    backend = opened(pool, "BadCount")
    with pytest.raises(StorageUnavailable, match="batch_exists of 8 keys answered 9"):
        backend.exists(KEYS)


def test_a_record_that_the_class_keeps_the_first_value_of_cannot_be_put_again(
    pool: HostPool,
) -> None:
    backend = opened(pool, "FirstValueStays")
    assert backend.put_small("epoch", b"one") and backend.get_small("epoch") == b"one"
    assert not backend.put_small("epoch", b"two")
    assert backend.get_small("epoch") == b"one" and backend.stats()["refused_records"] == 1


def test_a_record_that_is_too_long_is_refused(pool: HostPool) -> None:
    backend = opened(pool, "InMemory")
    assert not backend.put_small("long", bytes(1 << 20))
    assert backend.get_small("long") is None


def test_nothing_is_removed_by_a_class_without_delete(pool: HostPool) -> None:
    backend = opened(pool, "InMemory")
    backend.set(KEYS[:1], [0])
    assert backend.delete(KEYS[:1]) == [False] and backend.exists(KEYS[:1]) == [True]


def test_a_delete_that_the_class_has_is_used(pool: HostPool) -> None:
    backend = opened(pool, "Removes")
    backend.set(KEYS[:2], [0, 1])
    assert backend.delete(KEYS[1:3]) == [True, False]
    assert backend.exists(KEYS[:3]) == [True, False, False]


def test_a_class_that_cannot_take_the_pool_is_closed_again(pool: HostPool) -> None:
    with pytest.raises(StorageUnavailable, match="register_mem_pool_host failed: MemoryError"):
        opened(pool, "FailsToRegister", interface_v1=1)
    made: Any = InMemory.made[0]
    assert made.is_closed


def test_clear_is_refused_since_the_class_would_remove_what_others_store(pool: HostPool) -> None:
    backend = opened(pool, "InMemory")
    with pytest.raises(Exception, match="cannot remove one namespace's pages"):
        backend.clear()


def test_a_class_without_records_and_delete_attaches_all_the_same(pool: HostPool) -> None:
    guard = GuardedBackend(opener(pool, "Refuses"), pool, name="dynamic", namespace=NAMESPACE)
    assert guard.wait_attached(10)
    assert guard.epoch is None and guard.state == "attached"
    assert guard.close()


@pytest.mark.parametrize(
    ("class_name", "interface_v1", "words"),
    [
        ("NoExists", 0, "(interface_v1 0) it lacks exists"),
        ("InMemory", 1, "it lacks batch_exists, batch_get_v1, batch_set_v1, register_mem_pool"),
        ("OtherConstructor", 0, "OtherConstructor(storage_config, {}), which it does not take"),
        ("ContractWithOtherConstructor", 0, "(config, pool, namespace), which it does not take"),
    ],
)
def test_a_class_that_cannot_serve_is_refused_before_it_is_made(
    pool: HostPool, class_name: str, interface_v1: int, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        opener(pool, class_name, interface_v1=interface_v1)
    assert words in str(caught.value)


def test_a_constructor_that_fails_is_told_when_the_backend_is_opened(pool: HostPool) -> None:
    with pytest.raises(StorageUnavailable, match="constructor failed: ValueError: no licence"):
        opener(pool, "FailsToStart")()

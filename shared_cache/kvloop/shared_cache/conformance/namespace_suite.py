"""Namespaces are apart, are cleared apart, and are listed together."""

from __future__ import annotations

import secrets
from collections import Counter

import pytest

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.conformance.place import Place
from kvloop.shared_cache.storage_errors import StorageUnsupported


def listed(backend: StorageBackend, namespace: bytes) -> Counter[tuple[bytes | None, int, int]]:
    """The namespace's objects: key, group, bytes (of pages). Skips where the store cannot list."""
    objects = _objects(backend)
    if objects is None:
        pytest.skip("the store cannot list")
    mine = [found for found in objects if found.namespace == namespace]
    return Counter((o.key, o.group, o.num_bytes if o.key is not None else 0) for o in mine)


def pages(
    found: Counter[tuple[bytes | None, int, int]],
) -> Counter[tuple[bytes | None, int, int]]:
    """Without the records: a store may keep some of its own once it is written to."""
    return Counter({name: count for name, count in found.items() if name[0] is not None})


def _objects(backend: StorageBackend) -> list[StoredObject] | None:
    """None where the store cannot list."""
    try:
        return list(backend.objects())
    except StorageUnsupported:
        return None


class NamespaceSuite:
    """Part of BackendConformance."""

    def test_a_key_in_two_namespaces_is_two_pages(self, place: Place) -> None:
        theirs = secrets.token_bytes(32)
        mine, other, [key] = place.open(), place.open(theirs), place.new_keys(1)
        assert mine.set([key], place.filled([key], version=1)) == [True]
        assert other.exists([key]) == [False]
        assert other.get([key], place.blank(1)) == [False]
        slots = place.filled([key], version=2, namespace=theirs)
        assert other.set([key], slots) == [True]
        assert place.read_back(mine, [key], versions=[1]) == [True]
        [slot] = place.blank(1)
        assert other.get([key], [slot]) == [True]
        assert bytes(place.pool.view(slot)) == place.image(key, 2, theirs)

    def test_a_page_deleted_in_one_namespace_stays_in_the_other(self, place: Place) -> None:
        place.require("can_delete")
        mine, other, [key] = place.open(), place.open(secrets.token_bytes(32)), place.new_keys(1)
        mine.set([key], place.filled([key]))
        assert other.delete([key]) == [False]
        assert mine.exists([key]) == [True]

    def test_a_record_in_one_namespace_is_not_in_the_other(self, place: Place) -> None:
        place.require("can_keep_records")
        mine, other = place.open(), place.open(secrets.token_bytes(32))
        mine.put_small("record", b"mine")
        assert other.get_small("record") is None
        other.put_small("record", b"theirs")
        assert mine.get_small("record") == b"mine"

    def test_clear_empties_one_namespace_and_no_other(self, place: Place) -> None:
        place.require("can_delete")
        mine, other = place.open(), place.open(secrets.token_bytes(32))
        keys = place.new_keys(3)
        for backend in (mine, other):
            assert backend.set(keys, place.filled(keys)) == [True] * 3
        mine.clear()
        assert mine.exists(keys) == [False] * 3
        assert other.exists(keys) == [True] * 3
        assert mine.set(keys, place.filled(keys, version=1)) == [True] * 3
        assert place.read_back(mine, keys, versions=[1]) == [True] * 3

    def test_clear_removes_records_of_one_namespace_and_no_other(self, place: Place) -> None:
        place.require("can_delete", "can_keep_records")
        mine, other = place.open(), place.open(secrets.token_bytes(32))
        for backend in (mine, other):
            backend.put_small("record", b"value")
        mine.clear()
        assert mine.get_small("record") is None
        assert other.get_small("record") == b"value"

    def test_an_empty_namespace_can_be_cleared(self, place: Place) -> None:
        place.require("can_delete")
        backend = place.open()
        backend.clear()
        backend.clear()
        assert backend.exists(place.new_keys(1)) == [False]

    def test_the_listing_shows_each_object_of_each_namespace_once(self, place: Place) -> None:
        theirs = secrets.token_bytes(32)
        mine, other, keys = place.open(), place.open(theirs), place.new_keys(3)
        mine.set(keys, place.filled(keys))
        other.set(keys[:1], place.filled(keys[:1], namespace=theirs))
        groups, size = range(place.shape.head_groups), place.shape.object_bytes
        expected = Counter((key, group, size) for key in keys for group in groups)
        for backend in (mine, other):  # each lists the whole store
            assert pages(listed(backend, place.namespace)) == expected
            one = Counter((keys[0], group, size) for group in groups)
            assert pages(listed(backend, theirs)) == one

    def test_the_listing_shows_records_without_a_key(self, place: Place) -> None:
        place.require("can_keep_records")
        backend = place.open()
        backend.put_small("record", b"12345")
        found = listed(backend, place.namespace)
        assert set(found) == {(None, 0, 0)}

    def test_what_was_deleted_is_no_longer_listed(self, place: Place) -> None:
        place.require("can_delete")
        backend, keys = place.open(), place.new_keys(2)
        backend.set(keys, place.filled(keys))
        backend.delete(keys[:1])
        assert {key for key, _, _ in pages(listed(backend, place.namespace))} == {keys[1]}

    def test_opening_a_namespace_puts_nothing_into_the_store(self, place: Place) -> None:
        backend = place.open()
        backend.exists(place.new_keys(2))
        assert listed(backend, place.namespace) == Counter()

    def test_the_store_lists_where_its_spec_says_so(self, place: Place) -> None:
        if place.spec.can_list is None:
            pytest.skip("the spec leaves it open whether the store can list")
        assert (_objects(place.open()) is not None) == place.spec.can_list

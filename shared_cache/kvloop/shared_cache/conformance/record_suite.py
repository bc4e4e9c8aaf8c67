"""Small records: any name, the last put wins, and never half of one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from kvloop.shared_cache.conformance.place import Place
from kvloop.shared_cache.page_object import object_name

NAMES = {
    "plain": "plain",
    "parent": "..",
    "escape": "../../../escape",
    "absolute": "/etc/x",
    "slash": "a/b//c/",
    "dot": ".",
    "empty": "",
    "NUL": "a\x00b",
    "newline and glob": "\n *?[a-z]",
    "10,000 characters": "a" * 10_000,
    "unicode": "é漢🙂\u202e",
    "regular expression": "^.*$|(",
    "percent": "%2e%2e%2f",
}


class RecordSuite:
    """Part of BackendConformance."""

    @pytest.mark.parametrize("name", NAMES)
    def test_a_record_has_any_name_and_the_last_put_wins(self, place: Place, name: str) -> None:
        place.require("can_keep_records")
        backend, name = place.open(), NAMES[name]
        assert backend.get_small(name) is None
        assert backend.put_small(name, b"one")
        assert backend.get_small(name) == b"one"
        assert backend.put_small(name, b"two \x00" * 500)
        assert backend.get_small(name) == b"two \x00" * 500

    def test_records_of_like_names_are_apart(self, place: Place) -> None:
        place.require("can_keep_records")
        backend = place.open()
        names = ["a", "A", "a ", "a/b", "a_b", "a/../a", "é", "e\u0301", "a\x00", "a" * 300]
        names += ["a" * 301, object_name(place.namespace, bytes(32), 0)]
        for name in names:
            assert backend.put_small(name, name.encode())
        assert [backend.get_small(name) for name in names] == [name.encode() for name in names]

    def test_an_empty_record_is_not_a_missing_one(self, place: Place) -> None:
        place.require("can_keep_records")
        backend = place.open()
        assert backend.put_small("empty", b"")
        assert backend.get_small("empty") == b""
        assert backend.put_small("empty", b"x") and backend.put_small("empty", b"")
        assert backend.get_small("empty") == b""

    @pytest.mark.parametrize("num_bytes", [1, 4095, 4096, 4097, 16 << 10])
    def test_a_record_of_any_small_length_comes_back(self, place: Place, num_bytes: int) -> None:
        place.require("can_keep_records")
        backend, value = place.open(), bytes(range(256)) * 64
        assert backend.put_small("sized", value[:num_bytes])
        assert backend.get_small("sized") == value[:num_bytes]

    def test_a_record_is_no_page(self, place: Place) -> None:
        place.require("can_keep_records")
        backend, [key] = place.open(), place.new_keys(1)
        for group in range(place.shape.head_groups):
            backend.put_small(object_name(place.namespace, key, group), b"record")
        assert backend.exists([key]) == [False]
        assert place.read_back(backend, [key]) == [False]
        assert backend.set([key], place.filled([key])) == [True]
        assert place.read_back(backend, [key]) == [True]

    def test_a_record_outlives_the_opening_that_put_it(self, place: Place) -> None:
        place.require("can_keep_records")
        first = place.open()
        first.put_small("record", b"kept")
        place.shut(first)
        assert place.open().get_small("record") == b"kept"

    def test_a_record_that_many_put_at_once_is_one_of_theirs(self, place: Place) -> None:
        place.require("can_keep_records")
        backends = [place.open() for _ in range(2)]
        values = [bytes([i]) * (1000 + 500 * i) for i in range(4)]
        backends[0].put_small("contested", values[0])

        def put(i: int) -> None:
            for _ in range(10):
                assert backends[i % 2].put_small("contested", values[i])

        with ThreadPoolExecutor(5) as threads:
            writers = [threads.submit(put, i) for i in range(4)]
            seen = {backends[0].get_small("contested") for _ in range(30)}
            while not all(writer.done() for writer in writers):
                seen.add(backends[0].get_small("contested"))
            for writer in writers:
                writer.result()
        assert seen <= set(values)
        assert backends[1].get_small("contested") in values

"""Many at once: one whole content wins, and nobody ever sees half a page."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.conformance.child_process import ChildProcess
from kvloop.shared_cache.conformance.pages import LARGE
from kvloop.shared_cache.conformance.place import Place

_NUM_ROUNDS = 5


class RaceSuite:
    """Part of BackendConformance."""

    def test_of_many_threads_that_set_one_key_one_wins_whole(self, place: Place) -> None:
        backends = [place.open() for _ in range(3)]
        for key in place.new_keys(_NUM_ROUNDS):
            slots = [place.filled([key], version)[0] for version in range(6)]
            with ThreadPoolExecutor(6) as threads:
                calls = [threads.submit(backends[i % 3].set, [key], [slots[i]]) for i in range(6)]
                assert [call.result() for call in calls] == [[True]] * 6
            for backend in backends:
                assert place.read_back(backend, [key], versions=range(6)) == [True]
            place.pool.free(slots)

    def test_of_two_processes_that_set_the_same_keys_one_wins_each(self, place: Place) -> None:
        place.require("can_share")
        keys, backend = place.new_keys(24), place.open()
        with ExitStack() as stack:
            children = [stack.enter_context(ChildProcess(place, keys, version=i)) for i in range(2)]
            for child in children:
                child.wait_ready()
            for child in children:
                child.go()
            assert [child.wait_done() for child in children] == [[True] * 24] * 2
            assert backend.exists(keys) == [True] * 24
            assert place.read_back(backend, keys[:16], versions=[0, 1]) == [True] * 16

    def test_a_page_is_seen_by_others_once_its_set_said_true(self, place: Place) -> None:
        writer, reader = place.open(), place.open()
        for key in place.new_keys(_NUM_ROUNDS):
            slots = place.filled([key])
            assert writer.set([key], slots) == [True]
            assert reader.exists([key]) == [True] and place.read_back(reader, [key]) == [True]
            place.pool.free(slots)

    def test_a_page_set_by_another_process_is_read_here(self, place: Place) -> None:
        place.require("can_share")
        keys, backend = place.new_keys(8), place.open()
        assert backend.exists(keys) == [False] * 8
        with ChildProcess(place, keys) as child:
            child.wait_ready()
            child.go()
            assert child.wait_done() == [True] * 8
            assert place.read_back(backend, keys) == [True] * 8

    def test_readers_during_writes_see_whole_pages_or_none(self, place: Place) -> None:
        large = place.reshaped(LARGE, num_slots=12)
        writer, reader = large.open(), large.open()
        for keys in (large.new_keys(4) for _ in range(_NUM_ROUNDS)):
            slots = large.filled(keys)
            with ThreadPoolExecutor(2) as threads:
                call = threads.submit(writer.set, keys, slots)
                while not call.done():
                    large.read_back(reader, keys)
                assert call.result() == [True] * 4
            assert large.read_back(reader, keys) == [True] * 4
            large.pool.free(slots)

    def test_readers_during_another_processs_writes_see_whole_pages_or_none(
        self, place: Place
    ) -> None:
        place.require("can_share")
        large = place.reshaped(LARGE, num_slots=24)
        reader, keys = large.open(), large.new_keys(24)
        with ChildProcess(large, keys) as child, ThreadPoolExecutor(1) as threads:
            child.wait_ready()
            child.go()
            answers = threads.submit(child.wait_done)
            while not answers.done():
                large.read_back(reader, keys[:8])
                large.read_back(reader, keys[-8:])
            assert answers.result() == [True] * 24
            assert large.read_back(reader, keys[-8:]) == [True] * 8

    def test_readers_during_deletes_get_the_right_page_or_a_miss(self, place: Place) -> None:
        place.require("can_delete")
        backend, store, keys = place.open(), place.page_store(), place.new_keys(4)
        slots = place.filled(keys)
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(_set_and_delete, backend, keys, slots)
            while not call.done():
                read = place.blank(4)
                for key, slot, writer in zip(keys, read, store.load(keys, read), strict=True):
                    assert writer is None or place.holds(slot, key)
                place.pool.free(read)
            call.result()

    def test_calls_of_many_threads_do_not_mix_their_pages(self, place: Place) -> None:
        backend = place.open()

        def work(keys: list[bytes]) -> None:
            slots = place.filled(keys)
            for _ in range(_NUM_ROUNDS):
                assert backend.set(keys, slots) == [True] * 3
                assert place.read_back(backend, keys) == [True] * 3
                assert backend.exists(keys) == [True] * 3

        with ThreadPoolExecutor(4) as threads:
            for call in [threads.submit(work, place.new_keys(3)) for _ in range(4)]:
                call.result()


def _set_and_delete(backend: StorageBackend, keys: list[bytes], slots: list[int]) -> None:
    for _ in range(8 * _NUM_ROUNDS):
        assert len(backend.set(keys, slots)) == 4
        backend.delete(keys)

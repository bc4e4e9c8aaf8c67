"""A writer that is killed in mid-write leaves whole pages or none."""

from __future__ import annotations

import pytest

from kvloop.shared_cache.conformance.child_process import ChildProcess
from kvloop.shared_cache.conformance.pages import LARGE
from kvloop.shared_cache.conformance.place import Place

_NUM_PAGES = 24
_PAGES_PER_CALL = 6
_DEATHS = [1.1, 1.5, 2.4, 3.8]  # in calls of the writer: always in the midst of one


class CrashSuite:
    """Part of BackendConformance."""

    @pytest.mark.parametrize("dies_at", _DEATHS)
    def test_a_killed_writer_leaves_whole_pages_or_none(self, place: Place, dies_at: float) -> None:
        place.require("can_share")
        large = place.reshaped(LARGE, num_slots=16)
        backend, keys = large.open(), large.new_keys(_NUM_PAGES)
        with ChildProcess(large, keys, pages_per_call=_PAGES_PER_CALL, dies_at=dies_at) as child:
            child.wait_ready()
            child.go()
            child.wait_killed()
        done = int(dies_at) * _PAGES_PER_CALL
        assert backend.exists(keys[:done]) == [True] * done
        for start in range(0, _NUM_PAGES, _PAGES_PER_CALL):
            batch = keys[start : start + _PAGES_PER_CALL]
            found = backend.exists(batch)
            assert large.read_back(backend, batch) == found
        self._check_that_it_serves_on(large, keys)

    def _check_that_it_serves_on(self, large: Place, keys: list[bytes]) -> None:
        backend = large.open()
        fresh = large.new_keys(2)
        assert backend.set(fresh, large.filled(fresh)) == [True] * 2
        assert large.read_back(backend, fresh) == [True] * 2
        if large.spec.can_retake_at_once:
            for start in range(0, _NUM_PAGES, _PAGES_PER_CALL):
                batch = keys[start : start + _PAGES_PER_CALL]
                slots = large.filled(batch)
                assert backend.set(batch, slots) == [True] * len(batch)
                large.pool.free(slots)
                assert large.read_back(backend, batch) == [True] * len(batch)

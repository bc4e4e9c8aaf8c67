"""Opening and closing, again and again, leaves nothing behind in the process."""

from __future__ import annotations

import msgspec

from kvloop.shared_cache.conformance.child import Holdings
from kvloop.shared_cache.conformance.child_process import ChildProcess
from kvloop.shared_cache.conformance.pages import LARGE
from kvloop.shared_cache.conformance.place import Place

_NUM_CYCLES = 6  # to warm up, and again to measure
_NUM_PAGES = 8


class ResourceSuite:
    """Part of BackendConformance."""

    def test_openings_leak_no_descriptors_threads_or_memory(self, place: Place) -> None:
        large = place.reshaped(LARGE)
        keys = large.new_keys(_NUM_PAGES)
        with ChildProcess(large, keys, num_cycles=_NUM_CYCLES) as child:
            before, after = _report(child)
        growth = after.growth(before)
        # One leaked at each opening would be _NUM_CYCLES; half of that is no noise.
        half = _NUM_CYCLES // 2
        pool_bytes = _NUM_PAGES * LARGE.slot_bytes
        assert growth["descriptors"] < half, growth
        assert growth["threads"] < half, growth
        assert growth["mappings"] < _NUM_CYCLES, growth
        assert growth["locked_bytes"] < half * pool_bytes, growth
        assert growth["resident_bytes"] < half * pool_bytes, growth


def _report(child: ChildProcess) -> tuple[Holdings, Holdings]:
    while (line := child.next_line()) is not None:
        if line.startswith("[{"):
            return msgspec.json.decode(line, type=tuple[Holdings, Holdings])
    raise AssertionError(f"the other process ended early:\n{child.error_text()}")

"""Opening and closing, again and again, leaves nothing behind in the process."""

from __future__ import annotations

import msgspec
import pytest

from kvloop.shared_cache.conformance.child import Holdings
from kvloop.shared_cache.conformance.child_process import ChildProcess
from kvloop.shared_cache.conformance.pages import LARGE
from kvloop.shared_cache.conformance.place import Place

_NUM_CYCLES = 6  # to warm up, and again in each round
_NUM_ROUNDS = 4  # a leak shows in every one; what a library keeps and uses again does not
_NUM_PAGES = 8


class ResourceSuite:
    """Part of BackendConformance."""

    def test_openings_leak_no_descriptors_threads_or_memory(self, place: Place) -> None:
        large = place.reshaped(LARGE)
        keys = large.new_keys(_NUM_PAGES)
        with ChildProcess(large, keys, num_cycles=_NUM_CYCLES) as child:
            child.wait_ready()
            growths: list[dict[str, int]] = []
            while len(growths) < _NUM_ROUNDS:
                growths.append(_growth_of_a_round(child))
                if not _leaked(growths[-1]):
                    return
        pytest.fail(f"{_NUM_CYCLES} openings leave behind, in each round: {growths}")


def _leaked(growth: dict[str, int]) -> list[str]:
    """What grew by more than half of one at each opening, which is more than noise.

    Locked memory, by more than half of the pool since before the first opening: a backend that
    registers the pool and never lets go of it locks it once, and not at each opening.
    """
    pool_bytes = _NUM_PAGES * LARGE.slot_bytes
    one_each = {
        "descriptors": 1,
        "threads": 1,
        "mappings": 2,
        "locked_bytes": pool_bytes // _NUM_CYCLES,
        "resident_bytes": pool_bytes,
    }
    return [name for name, one in one_each.items() if growth[name] >= one * _NUM_CYCLES // 2]


def _growth_of_a_round(child: ChildProcess) -> dict[str, int]:
    child.go()
    while (line := child.next_line()) is not None:
        if line.startswith("[{"):
            before, after = msgspec.json.decode(line, type=tuple[Holdings, Holdings])
            return after.growth(before)
    raise AssertionError(f"the other process ended early:\n{child.error_text()}")

"""Which of Mooncake's numbers are a miss, a want of room, or a fault of the store itself."""

from __future__ import annotations

import pytest

from kvloop.shared_cache.backends.mooncake.codes import fault_of_the_store, faults_in, words


@pytest.mark.parametrize(
    ("codes", "faults", "fault"),
    [
        ([0, 1, 4096], [], None),
        ([-704, -703, -600], [], None),
        ([-200, -1700], [], None),
        ([-800, -800], [-800, -800], None),  # all of a batch on a store node that died
        ([0, -900], [-900], -900),
        ([-1010, 0], [-1010], -1010),
        ([-1701, 0], [-1701], -1701),
        ([-1, 0], [-1], None),
        ([-1, -1], [-1, -1], -1),
        ([-1, -800], [-1, -800], None),
    ],
)
def test_a_single_object_may_fail_alone_and_the_master_may_not(
    codes: list[int], faults: list[int], fault: int | None
) -> None:
    assert faults_in(codes) == faults
    assert fault_of_the_store(codes, faults) == fault


def test_a_code_that_is_known_is_explained() -> None:
    assert words(-900) == "-900 (the master cannot be reached)"
    assert words(-42) == "-42"

"""How long the offload pauses before it tries again."""

from __future__ import annotations

from random import Random

import pytest

from kvloop.decode.offload.back_off import look_pause_s, retry_pause_s


@pytest.mark.parametrize(
    ("num_failed", "pause_s"), [(1, 0.1), (2, 0.2), (3, 0.4), (5, 1.6), (6, 2.0), (5000, 2.0)]
)
def test_a_page_is_offered_again_after_pauses_that_double_up_to_two_seconds(
    num_failed: int, pause_s: float
) -> None:
    pauses = [retry_pause_s(num_failed, Random(seed)) for seed in range(200)]
    assert min(pauses) >= 0.75 * pause_s and max(pauses) <= 1.25 * pause_s
    assert max(pauses) - min(pauses) > 0.4 * pause_s, "chains that failed at once part"


def test_prefills_pages_are_looked_for_soon_then_seldom() -> None:
    pauses = [look_pause_s(num_looks) for num_looks in (1, 2, 3, 4, 5, 6, 7, 5000)]
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])

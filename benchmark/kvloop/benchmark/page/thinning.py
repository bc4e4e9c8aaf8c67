"""Fewer marks than a page can bear, chosen so that the picture stays true. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kvloop.benchmark.page import units
from kvloop.benchmark.sample import Sample


class Thinned(NamedTuple):
    """The chosen samples, and a sentence for the reader where some were left out."""

    samples: list[Sample]
    words: str | None


def thin(samples: Sequence[Sample], most: int) -> Thinned:
    """At most `most`: the slowest tenth of these by TTFT, and the others evenly in time."""
    if len(samples) <= most:
        return Thinned(list(samples), None)
    by_ttft = sorted(range(len(samples)), key=lambda i: samples[i].ttft_s, reverse=True)
    num_slow = most // 10
    others = sorted(by_ttft[num_slow:], key=lambda i: samples[i].sent_at)
    wanted = most - num_slow
    even = [others[n * len(others) // wanted] for n in range(wanted)]
    chosen = sorted([*by_ttft[:num_slow], *even], key=lambda i: samples[i].sent_at)
    words = (
        f"{units.count(most)} of {units.count(len(samples))} requests are drawn: the "
        f"{units.count(num_slow)} slowest, and the others evenly in time."
    )
    return Thinned([samples[i] for i in chosen], words)

"""One prompt spread over three tiers: usage and metrics count exactly the pages that moved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from faults import PAGE, Loop
from hicache_loop import SHAPE, SOURCES, Tiers, drain, ids_of, start
from loop import flush
from loop_client import complete
from running import Cluster, Running

pytestmark = pytest.mark.integration
DEVICE_PAGES, HOST_SLOTS = 32, 40
PROMPT_PAGES = 20
PROMPT = PROMPT_PAGES * PAGE + 1
"""Tokens: the last one is always computed, and begins a page of its own."""
ANSWER = 2


@pytest.fixture(scope="module")
def loop(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    tiers = Tiers(device_pages=DEVICE_PAGES, host_ratio=HOST_SLOTS / DEVICE_PAGES)
    with Cluster(tmp_path_factory.mktemp("tiers"), model) as cluster:
        yield start(cluster, tiers)


class Moved(NamedTuple):
    """What a prefill node counts of one path and result."""

    pages: float
    num_bytes: float
    seconds: float


PATHS = {
    "backup": "done",
    "load_back": "done",
    "prefetch": "hit",
    "write_through": "stored",
}


def counted(node: Running) -> dict[str, Moved]:
    """By path; seconds of L3's paths have no result of their own."""

    def of(path: str, result: str) -> Moved:
        pages, num_bytes = (
            node.metric(f"kvloop_pages{unit}_total", path=path, result=result)
            for unit in ("", "_bytes")
        )
        return Moved(pages, num_bytes, node.metric("kvloop_pages_seconds_total", path=path))

    return {path: of(path, result) for path, result in PATHS.items()}


def check_growth(before: dict[str, Moved], now: dict[str, Moved], pages: dict[str, int]) -> None:
    """Exactly these pages moved, each of its size, and no path took time for nothing."""
    for path in PATHS:
        size = SHAPE.payload_bytes if path in ("backup", "load_back") else SHAPE.object_bytes
        grown = now[path].pages - before[path].pages
        assert grown == pages[path], path
        assert now[path].num_bytes - before[path].num_bytes == grown * size, path
        assert (now[path].seconds > before[path].seconds) == bool(grown), path


def tiers_of(node: Running) -> dict[str, int]:
    return {
        tier: int(node.metric("kvloop_tier_pages", tier=tier))
        for tier in ("device", "host", "storage")
    }


def test_a_prompt_whose_pages_lie_in_three_tiers_is_counted_page_by_page(loop: Loop) -> None:
    (prefill,), (decode,) = loop.prefills, loop.decodes
    prompt, other, third = (ids_of(n, i) for i, n in enumerate((PROMPT, PROMPT, 4 * PAGE + 1)))
    start = counted(prefill)
    cold = complete(loop.url, prompt, ANSWER)
    assert cold.sources["computed"] == PROMPT
    loop.wait_idle()
    drain(loop)
    first = counted(prefill)
    check_growth(start, first, {"backup": 20, "write_through": 20, "load_back": 0, "prefetch": 0})

    # 33 pages want L1's 32, and 44 want L2's 40: what is last in the oldest prompt leaves first.
    for filler in (other, third):
        assert complete(loop.url, filler, ANSWER).sources["computed"] == len(filler)
        loop.wait_idle()
    drain(loop)
    second = counted(prefill)
    check_growth(first, second, {"backup": 24, "write_through": 24, "load_back": 0, "prefetch": 0})
    assert tiers_of(prefill) == {"device": 31, "host": 40, "storage": 44}

    flush(decode)
    again = complete(loop.url, prompt, ANSWER)
    assert again.ids == cold.ids
    in_device, in_host, in_storage = 7, 9, 4
    assert {source: again.sources[source] // PAGE for source in SOURCES[1:]} == {
        "device": in_device,
        "host": in_host,
        "storage": in_storage,
        "transfer_skipped": 0,
    }
    assert again.sources["computed"] == 1
    assert (again.by_prefill, again.by_decode) == (in_storage * PAGE, 0)
    loop.wait_idle()
    moved = {"backup": 0, "write_through": 0, "load_back": 13, "prefetch": in_storage}
    check_growth(second, counted(prefill), moved)
    assert prefill.metric("kvloop_prefetch_unfulfilled_pages_total") == 0
    assert prefill.metric("kvloop_storage_hit_tokens_total", writer="prefill") == in_storage * PAGE

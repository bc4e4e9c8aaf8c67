"""The reference simulation, on cases that can be followed by hand."""

from __future__ import annotations

import random
from typing import Any

import pytest

from kvloop.benchmark.replay.reference import RANKS, Rank, Reference, Sources, Tier

POLICIES = sorted(RANKS)


def reference(l1: int = 4, l2: int = 20, **options: Any) -> Reference:
    settings = {"policy": "lru", "write_policy": "write_through", **options}
    return Reference(l1_pages=l1, l2_pages=l2, **settings)


def sources(*pages: int) -> Sources:
    device, host, storage, computed = pages
    return Sources(device=device, host=host, storage=storage, computed=computed)


def test_a_new_prompt_is_computed_and_its_beginning_is_found_in_l1() -> None:
    simulated = reference()
    assert simulated.serve([1, 2]) == sources(0, 0, 0, 2)
    assert simulated.serve([1, 2, 3]) == sources(2, 0, 0, 1)
    assert simulated.serve([1, 9]) == sources(1, 0, 0, 1)


def test_what_l1_has_evicted_is_found_in_l2_and_what_l2_has_evicted_in_l3() -> None:
    simulated = reference(l1=2, l2=4)
    for pages in ([1, 2], [3, 4]):
        simulated.serve(pages)
    assert simulated.serve([1, 2]) == sources(0, 2, 0, 0)
    for pages in ([5, 6], [7, 8]):
        simulated.serve(pages)
    assert simulated.serve([1, 2]) == sources(0, 0, 2, 0)


def test_the_end_of_a_prompt_leaves_before_its_beginning() -> None:
    simulated = reference(l1=4)
    simulated.serve([1, 2, 3])
    simulated.serve([7, 8])
    assert simulated.device.pages == {1, 2, 7, 8}


def test_a_page_that_others_continue_stays_however_old_it_is() -> None:
    simulated = reference(l1=4, policy="lfu")
    simulated.serve([1])
    for _ in range(3):
        simulated.serve([1, 2])
    simulated.serve([7])
    simulated.serve([8, 9])
    assert simulated.device.pages == {1, 2, 8, 9}


@pytest.mark.parametrize(
    ("policy", "stays"), [("lru", 3), ("lfu", 1), ("slru", 2), ("priority", 4)]
)
def test_each_policy_has_its_own_favourite(policy: Any, stays: int) -> None:
    simulated = reference(l1=4, policy=policy)
    for _ in range(3):
        simulated.serve([1])
    simulated.serve([4], priority=9)
    for _ in range(2):
        simulated.serve([2])
    simulated.serve([3])
    simulated.serve([5, 6, 7])
    assert simulated.device.pages == {5, 6, 7, stays}


def test_selective_writes_at_the_second_use_and_write_back_when_l1_evicts() -> None:
    selective = reference(l1=2, write_policy="write_through_selective")
    selective.serve([1, 2])
    assert (selective.host.pages, selective.stored) == (set(), set())
    selective.serve([1, 3])
    assert (selective.host.pages, selective.stored) == ({1}, {1})
    back = reference(l1=2, write_policy="write_back")
    back.serve([1, 2])
    assert back.stored == set()
    back.serve([1, 3])
    assert (back.host.pages, back.stored) == ({2}, {2})


def test_a_page_in_no_tier_is_forgotten_with_its_uses() -> None:
    simulated = reference(l1=2, write_policy="write_through_selective")
    simulated.serve([1])
    simulated.serve([2, 3])
    simulated.serve([1])
    assert simulated.host.pages == set()
    simulated.serve([1])
    assert simulated.host.pages == {1}


def test_the_pages_of_the_request_being_served_do_not_leave() -> None:
    simulated = reference(l1=2, l2=4, policy="priority")
    simulated.serve([1, 2])
    for page in (3, 4):
        simulated.serve([page], priority=1)
    assert simulated.serve([1, 2, 5][:2]) == sources(0, 2, 0, 0)
    simulated.serve([1, 6])
    assert {1, 6} <= simulated.host.pages


@pytest.mark.parametrize("policy", POLICIES)
def test_the_heap_finds_what_a_look_at_all_pages_finds(
    policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [random_prompt(random.Random(seed)) for seed in range(300)]
    quick, slow = (reference(l1=12, l2=30, policy=policy) for _ in range(2))
    found = [quick.serve(prompt) for prompt in prompts]

    def lowest(tier: Tier, rank_of: Any, busy: frozenset[int]) -> int:
        ranked: list[tuple[Rank, int]] = [
            (rank_of(page), page)
            for page in tier.pages
            if page not in busy and not tier._below[page]
        ]
        return min(ranked)[1]

    monkeypatch.setattr(Tier, "lowest", lowest)
    assert [slow.serve(prompt) for prompt in prompts] == found


def random_prompt(rng: random.Random) -> list[int]:
    """A walk down a tree whose pages have three continuations each."""
    prompt, page = [], 0
    for _ in range(rng.randint(1, 8)):
        page = 3 * page + rng.choice([1, 1, 1, 2, 3])
        prompt.append(page)
    return prompt

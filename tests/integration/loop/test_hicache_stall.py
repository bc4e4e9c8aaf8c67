"""L3 stalls for five seconds a call: prompts go on without it, by policy, and it comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from admin import storage
from faults import PAGE, Loop, asking
from hicache_loop import (
    Tiers,
    drain,
    ids_of,
    is_in_state,
    set_policies,
    start,
    support_cluster,
)
from loop import flush
from loop_client import Answer, complete
from running import wait_for
from stalling_backend import Hand

from kvloop.shared_cache.hicache_names import PrefetchPolicy

pytestmark = pytest.mark.integration
PAGES = 20
PROMPT = PAGES * PAGE + 1
ANSWER = 8
LIMITS = (
    *("--hicache-prefetch-cap-s", "0.5"),
    *("--hicache-prefetch-timeout-base", "0.01"),
    *("--hicache-prefetch-timeout-per-ki-token", "0"),
)


@pytest.fixture(scope="module")
def loop(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    directory = tmp_path_factory.mktemp("stall")
    with support_cluster(directory, model) as cluster:
        cluster.node_flags = LIMITS
        yield start(cluster, Tiers(store="{}", device_pages=400))


@pytest.fixture
def hand(loop: Loop) -> Iterator[Hand]:
    hand = Hand(loop.cluster.directory / "l3")
    yield hand
    hand.release()
    wait_state(loop, "attached")


def all_calls(hand: Hand) -> int:
    """With those that were on their way to the backend when its breaker opened."""

    def is_over() -> bool:
        before = hand.num_calls()
        time.sleep(0.5)
        return hand.num_calls() == before

    wait_for("the last of the calls", is_over)
    return hand.num_calls()


def wait_state(loop: Loop, state: str) -> None:
    """Prefill's alone: decode may have nothing to ask."""
    wait_for(f"state {state}", lambda: is_in_state(loop.prefills[0], state), 60)


def known(loop: Loop, seed: object) -> Answer:
    """A prompt whose pages are in L3 alone."""
    first = complete(loop.url, ids_of(PROMPT, seed), ANSWER)
    drain(loop)
    for node in loop.nodes:
        flush(node)
    return first


def unfulfilled(loop: Loop, **labels: str) -> float:
    """Pages, by `reason` or in all."""
    return loop.prefills[0].metric("kvloop_prefetch_unfulfilled_pages_total", **labels)


@pytest.mark.parametrize(
    ("policy", "call", "reason"),
    [
        ("best_effort", "exists", "unanswered"),
        ("best_effort", "get", "estimate"),
        ("timeout", "get", "timeout"),
        ("wait_complete", "get", "cap"),
    ],
)
def test_a_prompt_goes_on_without_pages_that_stall_when_its_policy_says_so(
    policy: PrefetchPolicy, call: str, reason: str, loop: Loop, hand: Hand
) -> None:
    set_policies(loop.prefills[0], "write_through", policy)
    first = known(loop, (policy, call))
    before = unfulfilled(loop, reason=reason), unfulfilled(loop)
    hand.hold(call)
    again = complete(loop.url, first.prompt, ANSWER)
    assert again.ids == first.ids
    assert (again.sources["computed"], again.sources["fallback"]) == (PROMPT, None)
    # Not by the three seconds that the store itself is given: by the policy's own reason.
    grown = unfulfilled(loop, reason=reason) - before[0], unfulfilled(loop) - before[1]
    assert grown == (PAGES, PAGES)
    wait_state(loop, "open")


def test_while_the_breaker_is_open_no_prompt_asks_the_backend_for_anything(
    loop: Loop, hand: Hand
) -> None:
    set_policies(loop.prefills[0], "write_through", "wait_complete")
    first = known(loop, "open")
    hand.hold("exists", "get", "set", "open")
    asked = [asking(loop.url, ids_of(PROMPT, n), max_tokens=ANSWER) for n in range(4)]
    assert {task.result(60).sources["computed"] for task in asked} == {PROMPT}
    for node in loop.nodes:
        wait_for("the breaker", lambda node=node: is_in_state(node, "open"))
    num_calls, missed = all_calls(hand), unfulfilled(loop)
    again = complete(loop.url, first.prompt, ANSWER)
    fresh = complete(loop.url, ids_of(PROMPT, "fresh"), ANSWER)
    assert (again.ids, again.sources["computed"]) == (first.ids, PROMPT)
    assert fresh.sources["computed"] == PROMPT
    assert hand.num_calls() == num_calls
    assert unfulfilled(loop) == missed, "what was not asked for is not missed"
    assert all(storage(node)["last_error"] for node in loop.nodes)


def test_pages_that_could_not_be_written_are_written_when_l3_is_back(
    loop: Loop, hand: Hand
) -> None:
    hand.hold("set")
    first = complete(loop.url, ids_of(PROMPT, "unwritten"), ANSWER)
    wait_state(loop, "open")
    hand.release()
    for node in loop.nodes:
        wait_for("L3", lambda node=node: is_in_state(node, "attached"), 60)
    # All that is in L2 is offered to a backend that has come back; a use offers it too.
    again = complete(loop.url, first.prompt, ANSWER)
    assert again.ids == first.ids and again.sources["computed"] < PAGE
    drain(loop)
    found = complete(loop.url, first.prompt, ANSWER, cache="l3_only")
    assert (found.ids, found.sources["storage"]) == (first.ids, PAGES * PAGE)

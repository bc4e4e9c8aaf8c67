"""Turn after turn decode asks for what it does not hold, and every page is in L3 at the end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from faults import PAGE, Loop, start_loop
from hicache_loop import (
    drain,
    ids_of,
    support_cluster,
    use_stalling,
    wait_attached,
    wrong_tokens,
)
from l3_pages import L3, chain_of
from loop import flush
from loop_client import Answer, complete
from running import Running
from stalling_backend import Hand

pytestmark = pytest.mark.integration
NUM_CHATS, NUM_TURNS = 6, 4
POOL_PAGES = 40
"""Of each decode node: less than its three chats come to at the end."""


@pytest.fixture(scope="module")
def loop(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """Two small decode nodes; L3 stalls when the test says so."""
    small = ("--max-total-tokens", str(POOL_PAGES * PAGE), "--offload-deadline-s", "60")
    with support_cluster(tmp_path_factory.mktemp("delta"), model) as cluster:
        use_stalling(cluster, {})
        loop = start_loop(cluster, decodes=(small, small))
        wait_attached(*loop.nodes)
        yield loop


@pytest.fixture
def l3(loop: Loop) -> L3:
    return L3(loop.cluster.directory / "l3", loop.decodes[0].info()["node"]["namespace"])


def handed_over(loop: Loop) -> tuple[float, float]:
    """Pages and bytes that decode has received."""

    def total(metric: str) -> float:
        labels = {"path": "hand_off", "result": "received"}
        return sum(node.metric(metric, **labels) for node in loop.decodes)

    return total("kvloop_pages_total"), total("kvloop_pages_bytes_total")


def num_pages(num_tokens: int) -> int:
    return -(-num_tokens // PAGE)


def page_bytes(loop: Loop) -> float:
    pages, size = handed_over(loop)
    return size / pages


def next_prompt(chat: list[Answer], number: int) -> list[int]:
    turn = len(chat)
    known = chat[-1].history if chat else ids_of(2 * PAGE, "system")
    return [*known, *ids_of(9 + 5 * number + turn, 100 * number + turn)]


def decode_of(loop: Loop, answer: Answer) -> Running:
    (node,) = [node for node in loop.decodes if node.url == answer.sources["decode_node"]]
    return node


def test_a_later_turn_is_handed_only_what_decode_does_not_hold(loop: Loop) -> None:
    chat: list[Answer] = []
    for _ in range(NUM_TURNS):
        prompt = next_prompt(chat, 3)
        before = handed_over(loop)
        answer = complete(loop.url, prompt, 40, cache_salt="one chat")
        num_held = (len(chat[-1].history) - 1) // PAGE if chat else 0
        pages, size = handed_over(loop)
        assert pages - before[0] == num_pages(len(prompt)) - num_held, f"turn {len(chat) + 1}"
        assert size - before[1] == (pages - before[0]) * page_bytes(loop)
        if chat:
            assert answer.sources["decode_node"] == chat[-1].sources["decode_node"]
            assert answer.sources["transfer_skipped"] == num_held * PAGE
        chat.append(answer)
        drain(loop)


def test_chats_under_pressure_skip_transfers_stay_right_and_leave_all_pages_in_l3(
    loop: Loop, l3: L3, reference: Any
) -> None:
    chats: list[list[Answer]] = [[] for _ in range(NUM_CHATS)]
    before, _ = handed_over(loop)
    with ThreadPoolExecutor(NUM_CHATS) as threads:
        for _ in range(NUM_TURNS):
            tasks = [
                threads.submit(
                    complete, loop.url, next_prompt(chat, n), 30 + 5 * n, cache_salt="pressure"
                )
                for n, chat in enumerate(chats)
            ]
            for chat, task in zip(chats, tasks, strict=True):
                chat.append(task.result(120))
    drain(loop)
    answers = [answer for chat in chats for answer in chat]
    assert {answer.sources["decode_node"] for answer in answers} == {n.url for n in loop.decodes}
    assert all(wrong_tokens(reference, chat) == [] for chat in chats)
    for chat in chats:
        off = complete(loop.url, chat[-1].prompt, len(chat[-1].ids), cache="off")
        assert off.ids == chat[-1].ids
    skipped = sum(answer.sources["transfer_skipped"] for answer in answers) // PAGE
    full = [chain_of(answer, "pressure") for answer in answers]
    assert skipped > 0
    assert set().union(*full) <= l3.check()
    received = handed_over(loop)[0] - before - sum(num_pages(len(c[-1].prompt)) for c in chats)
    assert received <= sum(num_pages(len(answer.prompt)) for answer in answers) - skipped
    held = sum((len(turn.history) - 1) // PAGE for chat in chats for turn in chat[:-1])
    assert skipped < held, "the pools should have been too small for all of it"
    for node in loop.decodes:
        assert node.metric("kvloop_chain_holes_total", repaired="false") == 0
    loop.wait_idle()


def test_a_quick_client_is_handed_the_delta_although_the_offload_still_holds_its_pages(
    loop: Loop,
) -> None:
    hand = Hand(loop.cluster.directory / "l3")
    for node in loop.nodes:
        flush(node)
    hand.hold("set")
    try:
        first = complete(loop.url, ids_of(3 * PAGE + 5, "quick"), 40, cache_salt="quick")
        before, _ = handed_over(loop)
        prompt = [*first.history, *ids_of(10, "quick again")]
        second = complete(loop.url, prompt, 8, cache_salt="quick")
        held = decode_of(loop, second).info()["node"]["load"]["offload_backlog_pages"]
    finally:
        hand.release()
    assert held > 0, "the offload should not have been done with the first turn"
    num_full = (len(first.history) - 1) // PAGE
    assert handed_over(loop)[0] - before == num_pages(len(prompt)) - num_full
    drain(loop)
    loop.wait_idle()


@pytest.mark.parametrize("cache", ["l3_only", "off"])
def test_modes_that_read_no_page_of_decodes_are_handed_everything_beside_others_that_do(
    loop: Loop, reference: Any, cache: str
) -> None:
    first = complete(loop.url, ids_of(5 * PAGE, cache), 40, cache_salt=cache)
    drain(loop)
    prompt = [*first.history, *ids_of(10, cache)]
    with ThreadPoolExecutor(2) as threads:
        before, _ = handed_over(loop)
        modes = [cache, "on"]
        both = list(
            threads.map(
                lambda mode: complete(loop.url, prompt, 30, cache=mode, cache_salt=cache), modes
            )
        )
    assert both[0].sources["transfer_skipped"] == 0
    assert both[0].ids == both[1].ids and wrong_tokens(reference, both[:1]) == []
    received = handed_over(loop)[0] - before
    assert received >= num_pages(len(prompt))
    drain(loop)
    loop.wait_idle()

"""The decode node that has just answered a session is asked again: it waits for its pages."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from kvloop.router.dispatch import Dispatcher
from kvloop.router.jobs import Job
from kvloop.router.metrics import RouterMetrics
from kvloop.router.nodes import NodeRegistry
from kvloop.router.prefix_index import PrefixIndex
from kvloop.router.recent import FRESH_S, RecentAnswers
from kvloop.router.routing import rank_decodes
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import NodeLoad, NodeRecord, Sampling

PAGE = 16
FIRST = list(range(100))
KEYS = page_keys(FIRST, PAGE)
LATER = page_keys([*FIRST, *range(500, 560)], PAGE)


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_the_node_of_an_answer_that_has_just_ended_is_known_for_a_moment() -> None:
    clock = Clock()
    recent = RecentAnswers(clock)
    recent.note(KEYS, "a")
    assert recent.node_of(LATER) == "a"
    assert recent.node_of(page_keys(range(1, 99), PAGE)) is None
    clock.now += FRESH_S + 0.1
    assert recent.node_of(LATER) is None


def test_the_longest_answered_beginning_counts() -> None:
    recent = RecentAnswers(Clock())
    recent.note(LATER[:-1], "b")
    recent.note(KEYS, "a")
    assert recent.node_of(LATER) == "b"


def test_old_answers_are_forgotten_and_new_ones_bounded() -> None:
    clock = Clock()
    recent = RecentAnswers(clock)
    for number in range(5000):
        recent.note([number.to_bytes(4, "little")], "a")
    assert len(recent._ended) == 4096
    clock.now += FRESH_S + 0.1
    recent.note(KEYS, "a")
    assert len(recent._ended) == 1
    recent.note([], "a")


def decode(name: str) -> NodeRecord:
    return NodeRecord(
        url=f"http://{name}:1",
        role="decode",
        incarnation=name,
        namespace="n",
        page_size=PAGE,
        ready=True,
        load=NodeLoad(total_pages=10, free_pages=10),
    )


def test_a_fresh_session_stays_though_its_node_is_busier_but_not_at_any_price() -> None:
    def first(load: int) -> str:
        ranked = rank_decodes(
            [decode("a"), decode("b")],
            load=lambda n: load if n.incarnation == "b" else 0,
            held_pages=lambda n: 0,
            zone="",
            turn=0,
            fresh=lambda n: n.incarnation == "b",
        )
        return ranked[0].incarnation

    assert first(1) == "b"
    assert first(3) == "a"


async def test_the_dispatcher_asks_the_node_that_has_just_answered() -> None:
    registry = NodeRegistry(5.0)
    for name in ("a", "b"):
        registry.update(decode(name))
    index = PrefixIndex(100)
    dispatcher = Dispatcher(registry, index, cast(Any, None), RouterMetrics(), "")
    one, other = (first_decode(dispatcher, job([*FIRST, 7, 8])) for _ in range(2))
    assert {one, other} == {"a", "b"}, "equals take turns"
    for name in ("a", "b"):
        dispatcher.learn_answer(job(FIRST[:40]), decode(name), FIRST[40:])
        index.clear()  # no pages are known of either node: what counts is who has just answered
        assert [first_decode(dispatcher, job([*FIRST, 7, 8])) for _ in range(2)] == [name] * 2


def job(prompt: list[int]) -> Job:
    return Job(
        request_id="r",
        header_id="r",
        prompt=prompt,
        sampling=Sampling(max_tokens=1),
        seed=None,
        tenant="",
        priority=0,
        cache="on",
        stops=(),
        skip_special_tokens=True,
        keep_stop=False,
        arrived=0.0,
        deadline=asyncio.get_running_loop().time() + 60,
    )


def first_decode(dispatcher: Dispatcher, asked: Job) -> str:
    return next(dispatcher._attempts(asked, None, [])).node.incarnation

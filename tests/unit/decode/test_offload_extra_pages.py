"""An extra page is stored behind its chain, or told that it is not."""

from __future__ import annotations

from typing import Any

import pytest
from faulty_store import FaultyStore
from hicache_node import PAGE
from offload_steps import PROMPT, MakeNode, step

from kvloop.decode.offload import Extra


class Tail:
    """An extra page, and what was done about it."""

    def __init__(self, owner: Any, key: bytes = b"t" * 32) -> None:
        self.prepared: list[int] = []
        self.outcomes: list[bool] = []
        index = owner.num_kv // PAGE
        self.extra = Extra(
            key=key, index=index, prepare=self.prepared.append, done=self.outcomes.append
        )


def test_an_extra_page_is_stored_last_and_prepared_before(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of()
    owner = node.begin(PROMPT)
    assert owner is not None
    node.generate(owner, [8] * 4)
    tail = Tail(owner)
    node.end(owner, tail.extra)
    while not tail.outcomes:
        step(node)
        assert tail.outcomes or tail.extra.key not in store.pages
        assert (tail.extra.key in store.pages) <= (set(owner.keys) <= set(store.pages))
        node.now += 0.1
    assert tail.outcomes == [True] and len(tail.prepared) == 1
    node.settle()
    assert tail.outcomes == [True] and node.all_is_free()
    assert node.counted("kvloop_offload_seconds_count") == 4, "of full pages"


@pytest.mark.parametrize("when", ["broken", "late", "off", "detached"])
def test_an_extra_page_behind_a_hole_is_told_so_once(
    node_of: MakeNode, store: FaultyStore, when: str
) -> None:
    node = node_of(offload_retries=1, offload_deadline_s=2.0)
    owner = node.begin(PROMPT, cache="off" if when == "off" else "on")
    assert owner is not None
    if when == "detached":
        node.guard.detach(0)
    store.has_room = when == "off"
    node.generate(owner, [8] * 2)
    if when == "broken":
        node.settle()
        store.has_room = True
    node.generate(owner, [8] * 2)
    tail = Tail(owner)
    node.end(owner, tail.extra)
    node.settle()
    assert tail.outcomes == [False] and node.all_is_free()
    assert not store.pages


def test_an_extra_page_that_fails_is_offered_again(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of()
    owner = node.begin(PROMPT)
    assert owner is not None
    node.generate(owner, [8])
    node.settle(4)
    node.generate(owner, [8])
    tail = Tail(owner)
    store.has_room = False
    node.end(owner, tail.extra)
    node.settle(3, pause_s=0.05)
    store.has_room = True
    node.settle()
    assert tail.outcomes == [True] and len(tail.prepared) > 1

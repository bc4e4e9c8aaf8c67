"""What a node says of a canary's pages in L3: over a real pool, guard and store."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from memory_backend import MemoryBackend, Valve

from kvloop.engine.messages import CheckPages, Reply
from kvloop.engine.page_check import PageChecks
from kvloop.engine.parts import NodeParts
from kvloop.shared_cache.canary import Look, PageQuestion, PageReply, canary_seed
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.tail import tail_key

PAGE = 4
SHAPE = PageShape(num_layers=1, page_size=PAGE, num_kv_heads=1, head_size=8, itemsize=2)
TOKENS = list(range(12))
KEYS = page_keys(TOKENS, PAGE, canary_seed("n"))
QUICK = GuardConfig(deadline_s=5.0, first_retry_s=0.02, max_retry_s=0.1)


class Node:
    """What a node's checks need of its parts."""

    def __init__(self, tail_objects: bool = False) -> None:
        self.valve, self.pool = Valve(), HostPool(SHAPE, 4)
        self.guard = GuardedBackend(None, self.pool, name="none", namespace=b"n" * 32, config=QUICK)
        self.guard.attach(lambda: MemoryBackend(self.valve, self.pool), "memory")
        assert self.guard.wait_attached(10)
        self.store = PageStore(self.guard, self.pool, namespace=b"n" * 32, writer="decode")
        parts = SimpleNamespace(
            config=SimpleNamespace(
                page_size=PAGE, hicache_storage_backend="memory", tail_objects=tail_objects
            ),
            pool=self.pool,
            shape=SHAPE,
            store=self.store,
        )
        self.replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self.checks = PageChecks(cast(NodeParts, parts), self.replies.put)

    def put(self, key: bytes, byte: int) -> None:
        """Store a page of equal bytes."""
        (slot,) = self.pool.alloc(1) or []
        self.pool.payload(0)[slot] = np.uint8(byte)
        assert self.store.save([key], [slot]) == [True]
        self.pool.free([slot])

    def ask(self, look: Look, nonce: str = "n", tokens: list[int] = TOKENS) -> PageReply:
        question = PageQuestion(nonce=nonce, tokens=tokens, look=look)
        assert self.checks.takes(CheckPages(1, question))
        reply = self.replies.get(timeout=20)
        assert (reply.call, reply.status) == (1, 200)
        return msgspec.json.decode(reply.body, type=PageReply)

    def results(self, look: Look, **fields: Any) -> list[str]:
        return [page.result for page in self.ask(look, **fields).stored]


@pytest.fixture
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    node = Node(**getattr(request, "param", {}))
    yield node
    node.valve.is_open.set()
    node.guard.close()


def test_exists_tells_which_pages_l3_has_and_how_l3_stands(node: Node) -> None:
    node.put(KEYS[1], 7)
    reply = node.ask("exists")
    assert [page.result for page in reply.stored] == ["missing", "there", "missing"]
    assert (reply.backend, reply.state, reply.launched_with) == ("memory", "attached", "memory")


def test_read_checks_trailers_and_names_writers(node: Node) -> None:
    node.put(KEYS[0], 7)
    node.put(KEYS[2], 7)
    good, missing, other = node.ask("read").stored
    assert (good.result, good.writer, good.is_zero) == ("good", "decode", False)
    assert (missing.result, other.result) == ("missing", "good")


def test_a_page_whose_trailer_does_not_check_is_damaged(node: Node) -> None:
    node.put(KEYS[0], 7)
    page = bytearray(node.valve.pages[KEYS[0]])
    page[3] ^= 1
    node.valve.pages[KEYS[0]] = bytes(page)
    assert node.results("read")[0] == "damaged"


def test_a_page_of_zeros_is_told_though_its_checksum_is_right(node: Node) -> None:
    node.put(KEYS[0], 0)
    (page, *_) = node.ask("read").stored
    assert (page.result, page.is_zero) == ("good", True)


def test_remove_takes_pages_out_of_l3(node: Node) -> None:
    for key in KEYS:
        node.put(key, 7)
    assert node.results("remove") == ["removed"] * 3
    assert node.results("exists") == ["missing"] * 3
    assert not set(KEYS) & set(node.valve.pages)


TAILED = [7, 8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize("node", [{"tail_objects": True}], indirect=True)
@pytest.mark.parametrize(
    ("tokens", "parent", "tail"),
    [
        (TAILED, page_keys(TAILED, PAGE, canary_seed("n"))[0], [11, 12]),
        # a last page whose last token has no KV: the tail begins where that page does
        (TAILED[:4], canary_seed("n"), [7, 8, 9]),
    ],
    ids=["behind a page", "at the start"],
)
def test_remove_takes_the_tail_too_which_ends_before_the_last_token(
    node: Node, tokens: list[int], parent: bytes, tail: list[int]
) -> None:
    key = tail_key(parent, tail)
    assert node.results("remove", tokens=tokens)[-1] == "missing"
    node.put(key, 7)
    assert node.results("remove", tokens=tokens) == ["missing", "removed"]
    assert not node.valve.pages.keys() & {key}


@pytest.mark.parametrize(
    ("node", "tokens"),
    [({"tail_objects": True}, TAILED[:5]), ({"tail_objects": False}, TAILED)],
    indirect=["node"],
)
def test_without_a_tail_there_is_no_entry_for_one(node: Node, tokens: list[int]) -> None:
    assert node.results("remove", tokens=tokens) == ["missing"]


def test_only_a_canarys_pages_can_be_asked_for_or_removed(node: Node) -> None:
    users = page_keys(TOKENS, PAGE, None)
    for key in users:
        node.put(key, 7)
    assert node.results("exists", nonce="") == ["missing"] * 3
    assert node.results("remove", nonce="") == ["missing"] * 3
    assert set(users) <= set(node.valve.pages)


def test_host_pages_are_given_back_and_few_are_enough(node: Node) -> None:
    for key in KEYS:
        node.put(key, 7)
    taken = node.pool.alloc(3)
    assert taken is not None
    assert node.results("read") == ["good"] * 3
    assert node.pool.num_free == 1


def test_without_a_free_host_page_what_is_there_is_unread(node: Node) -> None:
    node.put(KEYS[0], 7)
    assert node.pool.alloc(4) is not None
    assert node.results("read") == ["unread", "missing", "missing"]


def test_a_detached_node_says_so_and_has_nothing(node: Node) -> None:
    node.put(KEYS[0], 7)
    node.guard.detach()
    reply = node.ask("read")
    assert (reply.state, reply.backend) == ("detached", "none")
    assert {page.result for page in reply.stored} == {"missing"}


def test_a_look_that_raises_is_answered_as_a_problem(node: Node) -> None:
    reply = node.ask("exists", tokens=[-1] * PAGE)
    assert reply.problem == "ValueError while looking" and not reply.stored


def test_more_questions_than_may_wait_are_refused_at_once(node: Node) -> None:
    node.valve.is_open.clear()
    question = PageQuestion(nonce="n", tokens=TOKENS, look="exists")
    for call in range(17):
        assert node.checks.takes(CheckPages(call, question))
    refused = node.replies.get(timeout=10)
    assert (refused.call, refused.status) == (16, 429)
    node.valve.is_open.set()
    assert {node.replies.get(timeout=10).call for _ in range(16)} == set(range(16))


def test_questions_that_were_answered_wait_no_more(node: Node) -> None:
    for _ in range(20):
        assert node.results("exists") == ["missing"] * 3


def test_the_link_does_not_wait_for_l3(node: Node) -> None:
    node.valve.is_open.clear()
    asking = threading.Thread(
        target=node.checks.takes,
        args=(CheckPages(1, PageQuestion(nonce="n", tokens=TOKENS, look="exists")),),
    )
    asking.start()
    asking.join(10)
    assert not asking.is_alive() and node.replies.empty()


def test_device_looks_are_left_to_the_loop(node: Node) -> None:
    question = PageQuestion(nonce="n", tokens=TOKENS, look="device")
    assert not node.checks.takes(CheckPages(1, question))

"""Who is told of another SharedCache, in which order, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.operator.attach import (
    BACKEND,
    EXTRA_CONFIG,
    AttachOutcome,
    Pod,
    Seen,
    attach_document,
    config_digest,
    has,
    outcome,
    plan_attach,
    reattach,
)
from kvloop.operator.connection import Connection
from kvloop.operator.errors import NodeError
from kvloop.operator.nodes.answers import StorageStatus
from kvloop.operator.nodes.client import NodeClient
from kvloop.shared_cache import config_digest as nodes

OLD, NEW = "digest-of-old", "digest-of-new"
NONE = StorageStatus(backend="none", state="detached")


def status(digest: str | None, state: Any = "attached", error: str | None = None) -> StorageStatus:
    return StorageStatus(backend="file", state=state, config_digest=digest, last_error=error)


def pod(name: str) -> Pod:
    """`d0`, `p1`, `r0`: by role."""
    role: Any = {"d": "decode", "p": "prefill", "r": "router"}[name[0]]
    return Pod(name=name, url=f"http://{name}", role=role)


def seen(**statuses: StorageStatus | None) -> list[Seen]:
    return [Seen(pod=pod(n), status=s, fault="" if s else "away") for n, s in statuses.items()]


def told(wanted: str | None = NEW, **statuses: StorageStatus | None) -> set[str]:
    return {one.name for one in plan_attach(seen(**statuses), wanted)}


old, new = status(OLD), status(NEW)


def test_the_document_is_the_body_of_the_nodes_put() -> None:
    connection = Connection(cache="c", backend="file", extra_config={"root": "/l3"})
    assert attach_document(connection) == {
        "hicache_storage_backend": "file",
        "hicache_storage_backend_extra_config_json": {"root": "/l3"},
    }
    filled = attach_document(connection, {"root": "/l3", "key": "s"})
    assert filled[EXTRA_CONFIG] == {"root": "/l3", "key": "s"}
    assert attach_document(None) == {}


def test_the_digest_is_the_nodes_own() -> None:
    config = {"root": "/l3", "n": {"b": [1, 2.5, None, True], "a": "ü${POD_IP}"}}
    document = {BACKEND: "file", EXTRA_CONFIG: config}
    assert config_digest("key", document) == nodes.config_digest("key", "file", config)
    assert config_digest("key", {BACKEND: "file"}) == nodes.config_digest("key", "file", {})
    assert config_digest("key", {}) is None and config_digest(None, document) is None


def test_one_decode_node_tries_the_new_store_first() -> None:
    assert told(p0=old, r0=old, d0=old, d1=old) == {"d0"}


def test_without_a_decode_node_a_prefill_node_tries_it() -> None:
    assert told(p0=old, p1=old, r0=old) == {"p0"}


def test_while_the_store_has_not_opened_nobody_else_leaves_the_old_one() -> None:
    for state in ("attaching", "open"):
        assert told(d0=status(NEW, state), d1=old, p0=old, r0=old) == set()


def test_then_all_that_write_what_nobody_else_holds_go_and_prefill_last() -> None:
    assert told(d0=new, d1=old, p0=old, r0=old) == {"d1", "r0"}
    assert told(d0=new, d1=new, p0=old, p1=old, r0=new) == {"p0", "p1"}
    assert told(d0=new, d1=new, p0=new, p1=new, r0=new) == set()


def test_who_has_nothing_attached_goes_at_once() -> None:
    assert told(p0=NONE, d0=NONE, r0=NONE) == {"p0", "d0", "r0"}
    assert told(p0=status(OLD, "open"), d0=old) == {"p0"}, "a store that is away is none"


def test_who_cannot_be_asked_holds_up_nobody() -> None:
    assert told(d0=None, d1=old, p0=old) == {"d1"}
    assert told(d0=None, d1=new, p0=old) == {"p0"}


def test_detaching_is_told_to_all_at_once() -> None:
    assert told(None, d0=old, p0=status(OLD, "open"), r0=NONE) == {"d0", "p0"}


states = st.builds(
    lambda digest, state: NONE if digest is None else status(digest, state),
    st.sampled_from([None, OLD, NEW, "third"]),
    st.sampled_from(["attached", "open", "attaching"]),
)
worlds = st.dictionaries(
    st.sampled_from(["d0", "d1", "d2", "p0", "p1", "r0"]), st.none() | states, min_size=1
)


@given(worlds, st.sampled_from([None, NEW]))
def test_all_that_answer_get_there_and_nobody_is_told_twice(
    world: dict[str, StorageStatus | None], wanted: str | None
) -> None:
    counts = dict.fromkeys(world, 0)
    for _ in range(6):
        for one in plan_attach(seen(**world), wanted):
            counts[one.name] += 1
            world[one.name] = NONE if wanted is None else new
        world = {  # what was told and hangs opens at last
            name: new if s is not None and wanted and has(s, wanted) else s
            for name, s in world.items()
        }
    assert max(counts.values()) <= 1
    assert all(s is None or has(s, wanted) for s in world.values())
    assert outcome(seen(**world), wanted).pending == ()


def test_the_outcome_names_each_pod_once_and_says_why() -> None:
    found = outcome(
        seen(
            d0=new, d1=status(NEW, "attaching"), d2=old, p0=status(NEW, "open", "no route"), p1=None
        ),
        NEW,
    )
    assert found == AttachOutcome(
        attached=("d0",),
        pending=("d1", "d2"),
        faults={"p0": "the store does not answer: no route", "p1": "away"},
    )
    assert not found.is_whole and AttachOutcome(attached=("d0",)).is_whole


class Nodes(NodeClient):
    """Pods that take what they are told, but for those that refuse or hang."""

    def __init__(self, state: Mapping[str, Any] | None = None, **statuses: StorageStatus) -> None:
        super().__init__(admin_key="key")
        self.statuses = {f"http://{name}": status for name, status in statuses.items()}
        self.opens = {f"http://{name}": how for name, how in (state or {}).items()}
        self.order: list[str] = []
        self.hangs: set[str] = set()
        self.refuses: set[str] = set()

    async def storage_status(self, url: str) -> StorageStatus:
        if url in self.hangs:
            await asyncio.sleep(60)
        return self.statuses[url]

    async def attach(self, url: str, body: Mapping[str, Any]) -> StorageStatus:
        if url in self.refuses:
            raise NodeError(f"PUT {url}: HTTP 400: no such field", status=400)
        self._note(url)
        state = self.opens.get(url, "attached")
        self.statuses[url] = status(config_digest("key", body), state, "no route")
        await asyncio.sleep(0)
        return self.statuses[url]

    async def detach(self, url: str, drain_s: float = 5.0) -> StorageStatus:
        self._note(url)
        self.statuses[url] = NONE
        return NONE

    def _note(self, url: str) -> None:
        self.order.append(url.removeprefix("http://"))


DOCUMENT = {BACKEND: "file", EXTRA_CONFIG: {"root": "/new"}}


async def move(nodes: Nodes, document: Mapping[str, Any] = DOCUMENT, **how: Any) -> AttachOutcome:
    pods: Sequence[Pod] = [pod(url.removeprefix("http://")) for url in nodes.statuses]
    return await reattach(nodes, pods, document, **how)


async def test_a_cluster_is_moved_in_one_call_prefill_last() -> None:
    nodes = Nodes(p0=old, r0=old, d0=old, d1=old)
    found = await move(nodes)
    assert found.is_whole and set(found.attached) == {"p0", "r0", "d0", "d1"}
    assert nodes.order[0] == "d0" and nodes.order[-1] == "p0"


async def test_a_second_call_tells_nobody() -> None:
    nodes = Nodes(p0=old, d0=old)
    await move(nodes)
    nodes.order = []
    assert (await move(nodes)).is_whole and nodes.order == []


async def test_a_store_that_does_not_open_is_tried_by_one_only() -> None:
    nodes = Nodes({"d0": "open"}, p0=old, r0=old, d0=old, d1=old)
    found = await move(nodes)
    assert nodes.order == ["d0"]
    assert found.faults == {"d0": "the store does not answer: no route"}
    assert set(found.pending) == {"p0", "r0", "d1"}


async def test_a_pod_that_refuses_is_told_once_and_holds_up_nobody() -> None:
    nodes = Nodes(p0=old, d0=old, d1=old)
    nodes.refuses = {"http://d0"}
    found = await move(nodes)
    assert found.faults == {"d0": "PUT http://d0: HTTP 400: no such field"}
    assert found.attached == ("p0", "d1")


async def test_a_pod_that_hangs_ends_with_the_deadline() -> None:
    nodes = Nodes(p0=old, d0=old)
    nodes.hangs = {"http://p0"}
    found = await move(nodes, timeout_s=0.1)
    assert found.faults == {"p0": "not asked in time"} and found.pending == ("d0",)


async def test_detaching_moves_all() -> None:
    nodes = Nodes(p0=old, d0=old, r0=NONE)
    assert (await move(nodes, {})).is_whole and set(nodes.order) == {"p0", "d0"}


async def test_without_an_admin_key_it_is_said() -> None:
    nodes = Nodes(p0=old)
    nodes.admin_key = None
    assert (await move(nodes)).faults == {"p0": "there is no admin key: pods cannot be told"}


@pytest.mark.parametrize("state", ["attached", "detached", "attaching", "draining", "open"])
def test_every_state_is_sorted(state: Any) -> None:
    found = outcome([Seen(pod=pod("d0"), status=status(NEW, state))], NEW)
    assert len(found.attached) + len(found.pending) + len(found.faults) == 1

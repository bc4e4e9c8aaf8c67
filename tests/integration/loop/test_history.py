"""Two routers over one store: whichever serves a turn, the ids of earlier answers are repeated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loop import flush
from running import (
    ADMIN,
    EXACT,
    SECRET,
    Cluster,
    Running,
    drained,
    fetch,
    free_port,
    stopped,
    wait_for,
)

pytestmark = pytest.mark.integration
PAGE = 16
NUM_TURNS = 4
NUM_ANSWER = 5 * PAGE


@dataclass
class Loop:
    cluster: Cluster
    nodes: list[Running]
    routers: list[Running]
    store: Running | None

    def start_router(self, *flags: str) -> Running:
        """One that polls the nodes and shares their store."""
        named = [part for node in self.nodes for part in (f"--{node.log.stem[:-5]}", node.url)]
        return router(self.cluster, *named, *flags)

    def drain(self) -> None:
        wait_for("the drain", lambda: drained(*self.nodes))

    def counted(self, name: str, **labels: str) -> float:
        """Over all routers."""
        return sum(each.metric(f"kvloop_{name}_total", **labels) for each in self.routers)


@pytest.fixture(scope="module", params=["mooncake", pytest.param("file", marks=pytest.mark.slow)])
def loop(
    request: pytest.FixtureRequest,
    tiny_models: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Loop]:
    directory = tmp_path_factory.mktemp("history")
    flags = ("--dtype", "float32", "--page-size", str(PAGE), "--threads", "1", *EXACT)
    with Cluster(directory, tiny_models["llama"], *flags) as cluster:
        store = None
        if request.param == "mooncake":
            store = cluster.mooncake()
        else:
            cluster.file_cache()
        nodes = [cluster.node(role) for role in ("prefill", "decode")]
        loop = Loop(cluster, nodes, [], store)
        loop.routers = [loop.start_router() for _ in range(2)]
        for running in (*nodes, *loop.routers):
            running.wait_ready()
        for each in loop.routers:
            wait_for("the router's store", lambda each=each: shared(each)["state"] == "attached")
        for node in nodes:
            wait_for("L3", lambda node=node: node.metric("kvloop_storage_state", state="attached"))
        yield loop


def router(cluster: Cluster, *flags: str) -> Running:
    port = free_port()
    secret = Path(cluster.secret)
    assert secret.read_text() == SECRET
    return cluster.start(
        f"router{port}",
        *("router", "--port", str(port), "--node-secret-file", str(secret)),
        *("--history-read-s", "10", "--admin-api-key", ADMIN),
        *cluster.storage,
        *flags,
        port=port,
    )


def shared(router: Running) -> dict[str, Any]:
    status: dict[str, Any] = router.info()["history"]["shared"]
    return status


class Chat:
    """A client that sends text only, to any router."""

    def __init__(
        self, loop: Loop, name: str, *, history: str = "on", temperature: float = 1.0
    ) -> None:
        self._loop, self._name = loop, name
        self._history, self._temperature = history, temperature
        self._messages: list[Any] = []
        self.ids: list[int] = []
        """Of all turns so far."""
        self.hits: list[int] = []
        self.reusable: list[int] = []
        """For each turn: prompt tokens on full pages that an earlier turn has filled."""

    def turn(self, router: Running) -> None:
        number = len(self.hits)
        self._messages.append({"role": "user", "content": f"{self._name}: go on with {number}."})
        status, reply = fetch(f"{router.url}/v1/chat/completions", self._body(number))
        assert status == 200, reply
        (choice,) = reply["choices"]
        self.hits.append(reply["usage"]["prompt_tokens_details"]["cached_tokens"])
        self.reusable.append(max(len(self.ids) - 1, 0) // PAGE * PAGE)
        self.ids = [*choice["prompt_token_ids"], *choice["token_ids"]]
        self._messages.append(choice["message"])
        self._loop.drain()

    def _body(self, number: int) -> dict[str, Any]:
        return {
            "model": "m",
            "messages": [{"role": m["role"], "content": m["content"]} for m in self._messages],
            "max_tokens": NUM_ANSWER,
            "temperature": self._temperature,
            "seed": number,
            "ignore_eos": True,
            "return_token_ids": True,
            "cache_salt": self._name,
            "kvloop": {"cache": "l3_only", "history": self._history},
        }


def test_every_page_is_hit_whichever_router_serves_a_turn(loop: Loop) -> None:
    repaired = loop.counted("retokenization_drift", repaired="true")
    found = loop.counted("history_lookups", result="shared")
    chat = Chat(loop, "switching")
    for number in range(NUM_TURNS):
        chat.turn(loop.routers[number % 2])
    assert chat.hits == chat.reusable and chat.hits[-1] >= (NUM_TURNS - 1) * NUM_ANSWER
    assert loop.counted("history_lookups", result="shared") == found + NUM_TURNS - 1
    assert loop.counted("retokenization_drift", repaired="true") > repaired
    assert loop.counted("history_records", result="stored") >= NUM_TURNS


def test_a_router_that_has_forgotten_all_goes_on_with_a_chat(loop: Loop) -> None:
    chat = Chat(loop, "forgotten")
    for _ in range(2):
        chat.turn(loop.routers[0])
    found = loop.routers[0].metric("kvloop_history_lookups_total", result="shared")
    flush(loop.routers[0])
    chat.turn(loop.routers[0])
    assert chat.hits == chat.reusable
    assert loop.routers[0].metric("kvloop_history_lookups_total", result="shared") == found + 1


@pytest.mark.slow
def test_a_router_that_was_started_anew_goes_on_with_a_chat(loop: Loop) -> None:
    chat = Chat(loop, "restarted")
    for _ in range(2):
        chat.turn(loop.routers[0])
    loop.routers[0].stop()
    loop.routers[0] = loop.start_router().wait_ready()
    wait_for("its store", lambda: shared(loop.routers[0])["state"] == "attached")
    chat.turn(loop.routers[0])
    assert chat.hits == chat.reusable
    assert loop.routers[0].metric("kvloop_history_lookups_total", result="shared") == 1


def test_without_history_pages_behind_the_first_drift_are_lost(loop: Loop) -> None:
    chat = Chat(loop, "forgetful", history="off", temperature=2.0)
    for _ in range(3):
        chat.turn(loop.routers[0])
    lost = [could - hit for hit, could in zip(chat.hits, chat.reusable, strict=True)]
    assert lost[0] == 0 and min(lost[1:]) >= 2 * PAGE
    assert loop.counted("retokenization_drift", repaired="false") >= 2


@pytest.mark.slow
def test_a_store_that_stalls_costs_ids_but_no_answer(loop: Loop) -> None:
    if loop.store is None:
        pytest.skip("a directory does not stall")
    chat = Chat(loop, "stalled")
    chat.turn(loop.routers[0])
    with stopped(loop.store):
        chat.turn(loop.routers[1])
    assert len(chat.ids) > 2 * NUM_ANSWER
    assert loop.counted("history_lookups", result="fault") >= 1

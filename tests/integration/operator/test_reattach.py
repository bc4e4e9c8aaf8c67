"""A running cluster moves between shared caches as the operator moves it; chats go on."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from admin import storage
from chat_models import chat_model
from faults import FLAGS, PAGE, known_nodes
from hicache_loop import ids_of
from loop_client import complete
from running import ADMIN, Cluster, Running, drained, fetch, wait_for

from kvloop.operator.attach import (
    BACKEND,
    EXTRA_CONFIG,
    AttachOutcome,
    Pod,
    config_digest,
    reattach,
)
from kvloop.operator.autoscale.load import Loads
from kvloop.operator.autoscale.watch import LoadWatch
from kvloop.operator.nodes.client import NodeClient

pytestmark = pytest.mark.integration
Document = dict[str, Any]
Result = TypeVar("Result")
CHAT = "/v1/chat/completions"
NUM_CHATS = 4


class Moving:
    """One prefill node, one decode node and a router, which read what they attach from a file."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.directory = cluster, cluster.directory
        self.attach_file = self.directory / "attach.json"
        self.write(self.file("a"))
        self.flags = (*FLAGS, "--hicache-storage-attach-file", str(self.attach_file))
        self.router = cluster.router(*self.flags[-2:])
        self.nodes = {role: cluster.node(role, *self.flags) for role in ("prefill", "decode")}
        self.wait_known()

    def wait_known(self) -> None:
        for running in (*self.nodes.values(), self.router):
            running.wait_ready()
        wait_for("the router's notice", lambda: known_nodes(self.router.url) == len(self.nodes))

    def file(self, name: str) -> Document:
        root = str(self.directory / "${POD_NAME}" / name)
        return {BACKEND: "file", EXTRA_CONFIG: {"root": root}}

    def write(self, document: Document) -> None:
        self.attach_file.write_text(json.dumps(document))

    @property
    def parts(self) -> dict[str, Running]:
        return {**self.nodes, "router": self.router}

    @property
    def pods(self) -> list[Pod]:
        return [
            Pod(name=name, url=running.url, role=name)  # type: ignore[arg-type]
            for name, running in self.parts.items()
        ]

    async def ask(self, work: Callable[[NodeClient], Awaitable[Result]]) -> Result:
        async with NodeClient(admin_key=ADMIN, timeout_s=20.0) as client:
            return await work(client)

    async def move(self, document: Document) -> AttachOutcome:
        """As the operator would: look again until all is done."""
        for _ in range(20):
            found = await self.ask(lambda client: reattach(client, self.pods, document))
            if found.is_whole:
                return found
        return found

    async def digests(self) -> set[str | None]:
        found = set()
        for running in self.parts.values():
            status = await self.ask(lambda client, url=running.url: client.storage_status(url))  # type: ignore[misc]
            assert status.state == "attached", status
            found.add(status.config_digest)
        return found

    async def canary(self) -> str:
        """What it found, with the stages."""
        report = await self.ask(lambda client: client.run_canary(self.router.url))
        return f"{report.result} {[(s.stage, s.state, s.reason) for s in report.stages]}"

    def reused(self) -> int:
        """Pages that decode wrote, found again by the next turn."""
        first = complete(self.router.url, ids_of(6 * PAGE, self), 5 * PAGE)
        wait_for("the drain", lambda: drained(*self.nodes.values()))
        second = complete(self.router.url, [*first.history, 9], 4, cache="l3_only")
        return second.by_decode // PAGE


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moving]:
    directory = tmp_path_factory.mktemp("moving")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POD_NAME", "pod-0")
        with Cluster(directory, chat_model(directory / "model")) as cluster:
            yield Moving(cluster)


def chat_until(moving: Moving, is_over: threading.Event, number: int) -> int:
    """Chats one after another, each answered; how many turns there were."""
    turns = 0
    while not is_over.is_set():
        history = ids_of(40 + number, f"{number} {turns}")
        messages: list[Any] = []
        for _ in range(3):
            history = complete(moving.router.url, [*history, 7], PAGE + 3).history
            messages.append({"role": "user", "content": f"more {number} {turns}"})
            body = {"model": "m", "messages": messages, "max_tokens": 12, "ignore_eos": True}
            status, reply = fetch(f"{moving.router.url}{CHAT}", body)
            assert status == 200, reply
            messages.append(reply["choices"][0]["message"])
            turns += 1
    return turns


async def test_all_read_at_start_what_the_file_says_and_nobody_is_told_again(
    moving: Moving,
) -> None:
    document = moving.file("a")
    wait_for("the router's store", lambda: storage(moving.router)["state"] == "attached")
    assert await moving.digests() == {config_digest(ADMIN, document)}
    before = [storage(node)["generation"] for node in moving.nodes.values()]
    assert (await moving.move(document)).is_whole
    assert [storage(node)["generation"] for node in moving.nodes.values()] == before
    assert (moving.directory / "pod-0" / "a").is_dir(), "the pod's own name is in the path"


async def test_chats_go_on_while_the_cluster_moves_between_files_and_mooncake(
    moving: Moving,
) -> None:
    store = moving.cluster.mooncake()
    moving.cluster.storage = []
    wait_for("the store", lambda: "store ready" in store.log.read_text(), 60)
    mooncake = {
        BACKEND: "mooncake",
        EXTRA_CONFIG: {"master_server_address": f"127.0.0.1:{store.port}"},
    }
    is_over = threading.Event()
    with ThreadPoolExecutor(NUM_CHATS) as threads:
        chats = [threads.submit(chat_until, moving, is_over, n) for n in range(NUM_CHATS)]
        try:
            for document in (moving.file("b"), mooncake, moving.file("a"), mooncake):
                found = await moving.move(document)
                assert found.is_whole, found
                assert await moving.digests() == {config_digest(ADMIN, document)}
                assert (await moving.canary()).startswith("whole")
        finally:
            is_over.set()
        turns = [chat.result(120) for chat in chats]
    assert min(turns) > 0, "each chat was answered, none failed"
    assert moving.reused() >= 4
    assert any((moving.directory / "pod-0" / "b").rglob("kvl1-*")), "it was in use"
    store_info = moving.router.info()["history"]["shared"]
    assert store_info["backend"].startswith("mooncake")
    assert (await moving.move(moving.file("a"))).is_whole
    store.stop()


async def test_a_store_that_is_away_is_left_to_one_node_and_the_loop_stays_whole_elsewhere(
    moving: Moving,
) -> None:
    assert (await moving.move(moving.file("a"))).is_whole
    plain = moving.directory / "plain"
    plain.write_text("a file where a directory should be")
    away = {BACKEND: "file", EXTRA_CONFIG: {"root": str(plain)}}
    found = await moving.ask(lambda client: reattach(client, moving.pods, away))
    assert list(found.faults) == ["decode"] and "does not answer" in found.faults["decode"]
    assert set(found.pending) == {"prefill", "router"}
    assert storage(moving.nodes["prefill"])["state"] == "attached"
    complete(moving.router.url, ids_of(40, "still"), 4)
    assert (await moving.move(moving.file("a"))).is_whole
    assert (await moving.canary()).startswith("whole")


async def test_detached_and_attached_again(moving: Moving) -> None:
    assert (await moving.move({})).is_whole
    assert {storage(running)["state"] for running in moving.parts.values()} == {"detached"}
    assert "write_back" in (await moving.canary())
    assert (await moving.move(moving.file("a"))).is_whole
    assert (await moving.canary()).startswith("whole")


async def test_a_restarted_node_attaches_what_the_file_says_now(moving: Moving) -> None:
    document = moving.file("b")
    moving.write(document)
    port = moving.nodes["decode"].port
    moving.nodes["decode"].stop()
    moving.nodes["decode"] = moving.cluster.node("decode", *moving.flags, port=port)
    moving.wait_known()
    wanted = config_digest(ADMIN, document)
    assert storage(moving.nodes["decode"])["config_digest"] == wanted
    assert (await moving.move(document)).attached == ("prefill", "decode", "router")
    assert (await moving.canary()).startswith("whole")


async def test_the_load_that_autoscaling_judges_is_read_of_real_nodes(moving: Moving) -> None:
    watch, now = LoadWatch(), 1000.0
    urls = [moving.router.url]

    async def look(at: float) -> Loads:
        return await moving.ask(lambda client: watch.look(client, urls, at))

    assert (await look(now)).roles == {}, "the first look has nothing to compare with"
    for number in range(6):
        complete(moving.router.url, ids_of(100, f"load {number}"), 8)
    found = await look(now + 30)
    assert set(found.roles) == {"prefill", "decode"}
    for role, load in found.roles.items():
        assert (load.ready, load.begun, load.window_s) == (1, 6, 30.0), role
        assert 0 < load.busy_share < 1 and load.wait_s >= 0 and load.waiting == 0
    assert found.ttft_s is not None and found.ttft_s > 0
    assert found.itl_s is not None and found.itl_s > 0
    assert (await look(now + 60)).roles["prefill"].begun == 6, "both looks are within a minute"


async def test_the_client_reads_what_real_nodes_and_routers_say(moving: Moving) -> None:
    async def read(client: NodeClient) -> None:
        prefill = await client.server_info(moving.nodes["prefill"].url)
        assert prefill.role == "prefill" and prefill.ready and prefill.load.total_pages > 0
        router = await client.router_info(moving.router.url)
        assert {node.role: node.state for node in router.nodes} == {
            "prefill": "ready",
            "decode": "ready",
        }
        tokens = await client.prompt_tokens(moving.router.url)
        assert tokens.computed > 0 and tokens.hit_rate is not None and 0 < tokens.hit_rate < 1
        last = await client.canary_last(moving.router.url)
        assert last.last is not None and last.last.stage("reuse").state == "ok"
        assert await client.is_ready(moving.router.url)

    await moving.ask(read)

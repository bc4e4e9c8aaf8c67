"""The store of the router's records, exchanged while it serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from kvloop.router.app import build_app
from kvloop.router.config import RouterConfig
from kvloop.router.errors import ApiError, BadRequest
from kvloop.router.history import History
from kvloop.router.history_recall import ChatMemory
from kvloop.router.metrics import RouterMetrics
from kvloop.router.nodes import NodeRegistry
from kvloop.router.storage import RouterStorage
from kvloop.router.tokenizer import TokenizerThreads
from kvloop.shared_cache.config_digest import config_digest
from kvloop.shared_cache.storage_change import StorageChange
from kvloop.shared_cache.wire import NodeRecord

NAMESPACE = "ab" * 32
PATH = "/hicache/storage-backend"
EXTRA = "hicache_storage_backend_extra_config_json"


class Router:
    """Its storage and its chats; no HTTP."""

    def __init__(self, **config: Any) -> None:
        self.storage = RouterStorage(RouterConfig(admin_api_key="key", **config), RouterMetrics())
        self.threads = TokenizerThreads()
        self.chats = ChatMemory(History(1000), self.storage.records, self.threads, RouterMetrics())
        self.registry = NodeRegistry(60.0)

    async def attach(self, root: Path) -> dict[str, Any]:
        change = StorageChange(backend="file", extra_config={"root": str(root)})
        return await self.storage.attach(change, self.chats)

    def see_node(self) -> None:
        self.registry.update(
            NodeRecord(
                url="http://n:1", role="decode", incarnation="i", namespace=NAMESPACE, ready=True
            )
        )


@pytest.fixture
async def router() -> AsyncIterator[Router]:
    router = Router()
    following = asyncio.create_task(router.chats.follow(router.registry))
    yield router
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await router.chats.close()
    router.threads.close()


async def known(router: Router) -> None:
    """The nodes' namespace has reached the chats."""
    router.see_node()
    async with asyncio.timeout(20):
        while not router.chats._namespaces:
            await asyncio.sleep(0.05)


async def test_without_a_store_it_is_detached(router: Router) -> None:
    status = router.storage.status()
    assert (status["backend"], status["state"]) == ("none", "detached")
    assert status["config_digest"] is None


async def test_an_attached_store_is_opened_for_the_nodes_namespace(
    router: Router, tmp_path: Path
) -> None:
    await known(router)
    status = await router.attach(tmp_path / "a")
    assert (status["backend"], status["state"], status["namespace"]) == (
        *("file", "attached"),
        NAMESPACE,
    )
    assert status["config_digest"] == config_digest("key", "file", {"root": str(tmp_path / "a")})
    assert router.chats._records is router.storage.records


async def test_before_any_node_is_known_the_store_is_being_attached(
    router: Router, tmp_path: Path
) -> None:
    assert (await router.attach(tmp_path / "a"))["state"] == "attaching"
    router.see_node()
    async with asyncio.timeout(20):
        while router.storage.status()["state"] != "attached":
            await asyncio.sleep(0.05)


async def test_the_next_store_keeps_the_namespace_of_the_last(
    router: Router, tmp_path: Path
) -> None:
    await known(router)
    await router.attach(tmp_path / "a")
    before = router.storage.records
    router.chats._namespaces = ["cd" * 32, NAMESPACE]
    status = await router.attach(tmp_path / "b")
    assert (status["state"], status["namespace"]) == ("attached", NAMESPACE)
    assert before is not None and before.storage_status()["state"] == "detached", "it was let go"


async def test_a_store_that_does_not_open_is_told_and_replaced_by_the_next(
    router: Router, tmp_path: Path
) -> None:
    await known(router)
    (tmp_path / "plain").write_text("a file")
    status = await router.attach(tmp_path / "plain")
    assert status["state"] == "open" and status["last_error"]
    assert (await router.attach(tmp_path / "a"))["state"] == "attached"


async def test_detach_shares_no_more_records(router: Router, tmp_path: Path) -> None:
    await known(router)
    await router.attach(tmp_path / "a")
    status = await router.storage.detach(5.0, router.chats)
    assert (status["backend"], status["state"]) == ("none", "detached")
    assert router.chats._records is None


async def test_a_wrong_config_changes_nothing(router: Router, tmp_path: Path) -> None:
    await known(router)
    before = await router.attach(tmp_path / "a")
    change = StorageChange(backend="file", extra_config={"rot": "/x"})
    with pytest.raises(BadRequest, match=f"^{EXTRA}: .*'rot'"):
        await router.storage.attach(change, router.chats)
    assert router.storage.status()["config_digest"] == before["config_digest"]


async def test_one_action_at_a_time(router: Router, tmp_path: Path) -> None:
    await known(router)
    first = asyncio.create_task(router.attach(tmp_path / "a"))
    await asyncio.sleep(0)
    with pytest.raises(ApiError, match="attach is still running") as raised:
        await router.storage.detach(5.0, router.chats)
    assert raised.value.status == 409
    assert (await first)["state"] == "attached"


async def test_the_pods_own_values_are_put_into_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_NAME", "router-0")
    config = {"root": f"{tmp_path}/${{POD_NAME}}"}
    router = Router(hicache_storage_backend="file", hicache_storage_backend_extra_config=config)
    assert router.storage.status()["config_digest"] == config_digest("key", "file", config)
    assert router.storage.records is not None
    assert router.storage.records.status()["backend"] == f"file:{tmp_path}/router-0"
    await router.chats.close()
    router.threads.close()


@pytest.fixture
def client() -> TestClient:
    return TestClient(build_app(RouterConfig(admin_api_key="key")))


def ask(client: TestClient, method: str, body: Any = None, key: str = "key", **query: Any) -> Any:
    content = None if body is None else json.dumps(body)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    reply = client.request(method, PATH, content=content, headers=headers, params=query)
    return reply.status_code, reply.json()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_every_call_wants_the_admin_key(client: TestClient, method: str) -> None:
    for key in ("", "wrong"):
        assert ask(client, method, {"nonsense": 1}, key)[0] == 401
    without = TestClient(build_app(RouterConfig()))
    assert ask(without, method, {"nonsense": 1})[0] == 403


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "nothing to change: give hicache_storage_backend"),
        ({"hicache_write_policy": "write_back"}, "this is the router"),
        ({"backend": "file"}, "unknown field 'backend'"),
        ({"hicache_storage_backend": "file", EXTRA: {"rot": 1}}, "unknown field 'rot'"),
    ],
)
def test_put_refuses_what_is_wrong_and_names_it(client: TestClient, body: Any, words: str) -> None:
    status, answer = ask(client, "PUT", body)
    assert status == 400 and words in answer["error"]["message"]


def test_put_get_and_delete_over_http(client: TestClient, tmp_path: Path) -> None:
    body = {"hicache_storage_backend": "file", EXTRA: {"root": str(tmp_path)}}
    assert ask(client, "PUT", body)[1]["state"] == "attaching"
    assert ask(client, "GET")[1]["backend"] == "file"
    assert ask(client, "DELETE", timeout_s="0")[0] == 400
    assert ask(client, "DELETE", timeout_s="2")[1]["state"] == "detached"

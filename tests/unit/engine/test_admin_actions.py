"""The engine's side of the admin API: a real guard, and a scheduler that notes what it is told."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_backend import MemoryBackend, Valve, eventually

from kvloop.engine.messages import AttachStorage, ClearStorage, DetachStorage, Reply
from kvloop.engine.storage_admin import StorageAdmin
from kvloop.shared_cache.config_digest import config_digest
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import open_backend
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.storage_change import StorageChange

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=1, head_size=8, itemsize=2)
QUICK = GuardConfig(deadline_s=0.2, first_retry_s=0.02, max_retry_s=0.1)
KEY = b"k" * 32


class Scheduler:
    """Notes what it was told, and on which thread."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()

    def set_policies(self, prefetch_policy: Any, write_policy: Any) -> None:
        if write_policy == "write_back":
            raise ConfigError("hicache_write_policy: not now")
        self._note(prefetch_policy, write_policy)

    def set_prefetch_limits(self, *limits: float | None) -> None:
        self._note(*limits)

    def policies(self) -> dict[str, str]:
        return {"hicache_write_policy": "write_through"}

    def _note(self, *what: Any) -> None:
        self.told.append(what)
        self.threads.add(threading.current_thread().name)


class Node:
    """An admin, its guard, and a loop that turns."""

    def __init__(self, **admin: Any) -> None:
        self.pool = HostPool(SHAPE, 4)
        self.guard = GuardedBackend(None, self.pool, name="none", namespace=b"n" * 32, config=QUICK)
        self.scheduler = Scheduler()
        self.replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self.admin = StorageAdmin(self.guard, self.scheduler, self.replies.put, **admin)
        self._stop = threading.Event()
        self.loop = threading.Thread(target=self._turn, name="loop", daemon=True)

    def _turn(self) -> None:
        while not self._stop.is_set():
            self.admin.turn()
            time.sleep(0.001)

    def close(self) -> None:
        self._stop.set()
        self.guard.close()

    def answer(self) -> tuple[int, Any]:
        reply = self.replies.get(timeout=10)
        return reply.status, json.loads(reply.body)

    def put(self, **change: Any) -> tuple[int, Any]:
        self.admin.start(AttachStorage(1, StorageChange(**change)))
        return self.answer()

    def delete(self, timeout_s: float = 5.0) -> tuple[int, Any]:
        self.admin.start(DetachStorage(2, timeout_s))
        return self.answer()

    def clear(self, timeout_s: float = 5.0) -> tuple[int, Any]:
        self.admin.start(ClearStorage(3, timeout_s))
        return self.answer()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    node.loop.start()
    yield node
    node.close()


def test_attach_answers_with_the_status_of_the_new_backend(node: Node, tmp_path: Path) -> None:
    status, body = node.put(backend="file", extra_config={"root": str(tmp_path)})
    assert (status, body["backend"], body["state"]) == (200, "file", "attached")
    assert body["policies"] == {"hicache_write_policy": "write_through"}
    assert node.guard.exists([KEY]) == [False]
    assert node.scheduler.told == []


def test_a_backend_that_cannot_open_is_answered_with_the_reason(node: Node, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file")
    status, body = node.put(backend="file", extra_config={"root": str(tmp_path / "plain")})
    assert (status, body["state"]) == (200, "open")
    assert "storage backend 'file'" in body["last_error"]


def test_policies_and_limits_are_set_on_the_loops_thread(node: Node, tmp_path: Path) -> None:
    extra = {"root": str(tmp_path), "prefetch_threshold": 256, "prefetch_timeout_base": 2}
    status, _ = node.put(
        backend="file",
        extra_config=extra,
        prefetch_policy="timeout",
        write_policy="write_through_selective",
    )
    assert status == 200
    assert node.scheduler.told == [("timeout", "write_through_selective"), (256, 2.0, None)]
    assert node.scheduler.threads == {"loop"}


def test_policies_alone_leave_the_backend_as_it_is(node: Node, tmp_path: Path) -> None:
    node.put(backend="file", extra_config={"root": str(tmp_path)})
    generation = node.guard.generation
    status, body = node.put(prefetch_policy="wait_complete")
    assert (status, body["state"]) == (200, "attached") and node.guard.generation == generation


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"rot": "/x"}, "unknown field 'rot'"),
        ({"root": "/x", "prefetch_threshold": -1}, "prefetch_threshold must be a whole number"),
    ],
)
def test_a_wrong_config_changes_nothing(
    node: Node, tmp_path: Path, extra: dict[str, Any], words: str
) -> None:
    node.put(backend="file", extra_config={"root": str(tmp_path)})
    before = node.guard.status()
    status, body = node.put(backend="file", extra_config=extra, prefetch_policy="timeout")
    assert status == 400
    assert body["error"]["message"].startswith("hicache_storage_backend_extra_config_json: ")
    assert words in body["error"]["message"]
    assert node.scheduler.told == [] and node.guard.status() == before


def test_a_policy_that_the_scheduler_refuses_attaches_nothing(node: Node, tmp_path: Path) -> None:
    status, body = node.put(
        backend="file", extra_config={"root": str(tmp_path)}, write_policy="write_back"
    )
    assert (status, body["error"]["message"]) == (400, "hicache_write_policy: not now")
    assert node.guard.state == "detached"


def test_policies_that_the_loop_does_not_take_are_not_set_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kvloop.engine.storage_admin._LOOP_S", 0.02)
    node = Node()
    status, body = node.put(prefetch_policy="timeout")
    assert status == 503 and "took no new policies" in body["error"]["message"]
    node.admin.turn()
    assert node.scheduler.told == []
    node.close()


def test_detach_answers_detached_and_once_more_is_no_error(node: Node, tmp_path: Path) -> None:
    node.put(backend="file", extra_config={"root": str(tmp_path)})
    for _ in range(2):
        status, body = node.delete()
        assert (status, body["state"], body["backend"]) == (200, "detached", "none")
    assert node.admin.status()["state"] == "detached"


def test_one_action_at_a_time(node: Node) -> None:
    valve = Valve()
    node.guard.attach(lambda: MemoryBackend(valve, node.pool), "memory")
    assert node.guard.wait_attached(5)
    valve.is_open.clear()
    arrived = valve.num_waiting
    node.admin.start(ClearStorage(7, 5.0))
    assert eventually(lambda: valve.num_waiting > arrived)
    for start in (node.delete, node.clear, lambda: node.put(prefetch_policy="timeout")):
        status, body = start()
        assert (status, body["error"]["message"]) == (409, "clear is still running; ask again")
    assert node.admin.status()["state"] == "attached", "GET is answered meanwhile"
    valve.is_open.set()
    assert node.answer() == (200, {"cleared": True, "seconds": pytest.approx(0, abs=10)})
    assert node.delete()[0] == 200


def test_clear_removes_this_namespace_only(node: Node, tmp_path: Path) -> None:
    other = HostPool(SHAPE, 1)
    theirs = open_backend("file", {"root": str(tmp_path)}, other, b"o" * 32)
    for pool, store in ((other, theirs), (node.pool, node.guard)):
        if store is node.guard:
            node.put(backend="file", extra_config={"root": str(tmp_path)})
        slots = pool.alloc(1)
        assert slots is not None and store.set([KEY], slots) == [True]
    assert node.clear()[0] == 200
    assert node.guard.exists([KEY]) == [False] and theirs.exists([KEY]) == [True]
    theirs.close()


def test_clear_says_why_it_did_not(node: Node) -> None:
    status, body = node.clear()
    assert status == 409 and "its state is detached" in body["error"]["message"]
    valve = Valve()
    node.guard.attach(lambda: MemoryBackend(valve, node.pool), "memory")
    assert node.guard.wait_attached(5)
    valve.is_open.clear()
    status, body = node.clear(0.05)
    assert (status, body["error"]["message"]) == (504, "not cleared within 0.05 s; it goes on")
    valve.is_open.set()
    valve.error = RuntimeError("read-only")
    assert eventually(lambda: node.guard.state == "attached")
    status, body = node.clear()
    assert status in (409, 502), body


def test_a_bug_in_an_action_is_answered_and_leaves_the_next_one_free(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.guard, "detach", lambda timeout_s: 1 / 0)
    assert node.delete() == (
        500,
        {"error": {"message": "ZeroDivisionError in detach", "code": 500}},
    )
    monkeypatch.undo()
    assert node.delete()[0] == 200


def digest_of(node: Node) -> Any:
    return node.admin.status()["config_digest"]


def test_the_status_tells_a_digest_of_what_was_attached_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_NAME", "decode-7")
    given = {"root": f"{tmp_path}/${{POD_NAME}}"}
    node = Node(admin_key="key")
    node.loop.start()
    assert digest_of(node) is None
    assert node.put(backend="file", extra_config=given)[0] == 200
    assert digest_of(node) == config_digest("key", "file", given)
    assert node.guard.exists([KEY]) == [False] and (tmp_path / "decode-7").is_dir()
    node.put(prefetch_policy="timeout")
    assert digest_of(node) == config_digest("key", "file", given), "a policy changes no store"
    assert node.put(backend="file", extra_config={"rot": "/x"})[0] == 400
    assert digest_of(node) == config_digest("key", "file", given)
    node.delete()
    assert digest_of(node) is None
    node.close()


def test_a_variable_that_is_not_set_is_refused_by_put(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POD_IP", raising=False)
    status, body = node.put(backend="file", extra_config={"root": "/x/${POD_IP}"})
    assert status == 400 and "no POD_IP" in body["error"]["message"]
    assert node.guard.state == "detached"


def test_what_was_attached_at_start_has_its_digest_too() -> None:
    given = StorageChange(backend="file", extra_config={"root": "/l3"})
    node = Node(admin_key="key", attached=given)
    assert digest_of(node) == config_digest("key", "file", {"root": "/l3"})
    assert Node(attached=given).admin.status()["config_digest"] is None, "there is no key"

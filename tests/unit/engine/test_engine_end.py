"""The end of an engine process, and what it tells of its load when it is asked."""

from __future__ import annotations

import subprocess
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvloop.engine import engine_client, process
from kvloop.engine.engine_client import EngineClient
from kvloop.engine.event_publication import Publication
from kvloop.engine.link import EngineLink
from kvloop.engine.messages import STACKS_SIGNAL, Call, LoadReport, Reply
from kvloop.engine.node_config import NodeConfig
from kvloop.engine.storage_admin import StorageAdmin
from kvloop.shared_cache.wire import NodeLoad


class Stubborn:
    """A process that ends only when it is killed; each wait takes its timeout."""

    def __init__(self) -> None:
        self.now, self.was_killed_at = 0.0, 0.0
        self.stacks_wanted_at = 0.0

    def poll(self) -> int | None:
        return -9 if self.was_killed_at else None

    def terminate(self) -> None: ...

    def send_signal(self, number: int) -> None:
        assert number == STACKS_SIGNAL
        self.stacks_wanted_at = self.now

    def kill(self) -> None:
        self.was_killed_at = self.now

    def wait(self, timeout_s: float = 0.0) -> None:
        if self.was_killed_at:
            return
        self.now += timeout_s
        raise subprocess.TimeoutExpired("engine", timeout_s)


@pytest.mark.parametrize("drain_s", [5.0, 120.0])
async def test_an_engine_is_not_killed_before_its_drain_could_end(
    drain_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = NodeConfig(role="decode", model="m", drain_timeout_s=drain_s)
    client, engine = EngineClient(config, "none", lambda message: None), Stubborn()
    monkeypatch.setattr(engine_client, "time", SimpleNamespace(monotonic=lambda: engine.now))
    client._end(cast(Any, engine))
    assert drain_s + 10 <= engine.was_killed_at <= drain_s + 30
    assert drain_s + 10 <= engine.stacks_wanted_at < engine.was_killed_at
    await client.stop()


class OneCall:
    """A link on which one question comes; the answer ends the loop."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.sent: list[object] = []
        self.incoming: list[object] = [Call(1, "describe")]

    def receive(self, timeout_s: float) -> list[object]:
        messages, self.incoming = self.incoming, []
        return messages

    def send(self, message: object) -> None:
        self.sent.append(message)
        if isinstance(message, Reply):
            self.stop.set()


def test_who_asks_an_engine_is_told_its_load_of_now() -> None:
    link, load = OneCall(), NodeLoad(offload_backlog_pages=7)
    scheduler = SimpleNamespace(load=lambda: load, describe=dict, step=lambda: False)
    admin = SimpleNamespace(turn=lambda: None)
    process._loop(
        cast(process.Scheduler, scheduler),
        cast(StorageAdmin, admin),
        cast(EngineLink, link),
        cast(Publication, SimpleNamespace(turn=lambda: None)),
        link.stop,
    )
    assert link.sent[:2] == [LoadReport(load), Reply(1, b"{}")]

"""Records in a store that may be slow, away, full, or another one: counted, never waited for."""

from __future__ import annotations

import asyncio
import random
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_backend import MemoryBackend, Valve, eventually

from kvloop.router.config import RouterConfig
from kvloop.router.history_record import Record, Segment
from kvloop.router.history_store import (
    NoAnswer,
    SharedRecords,
    record_store,
)
from kvloop.router.metrics import RouterMetrics
from kvloop.router.storage import RouterStorage
from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.store_tools.address import StoreAddress

CHAT = b"c" * 32
RECORD = Record(0, (Segment(2, 10, False, array("I", [1, 2, 3])),))
ONE, OTHER = "11" * 32, "22" * 32


class Behind(StoreAddress):
    """A store behind a valve, one for each namespace."""

    def opener(self, pool: HostPool, namespace: bytes) -> BackendOpener:
        valve = VALVES.setdefault(namespace, Valve())
        return lambda: MemoryBackend(valve, pool)


VALVES: dict[bytes, Valve] = {}


class Shared:
    """Records over valves, and what was counted of them."""

    def __init__(self, read_s: float, backend: str = "behind") -> None:
        VALVES.clear()
        self.counts: Counter[str] = Counter()
        self.records = SharedRecords(Behind(backend=backend), self._count, read_s)

    def _count(self, result: str) -> None:
        self.counts[result] += 1

    @property
    def valve(self) -> Valve:
        return VALVES[bytes.fromhex(ONE)]

    def attach(self, namespace: str = ONE) -> None:
        self.records.follow([namespace])
        key = bytes.fromhex(namespace)
        assert eventually(lambda: key in VALVES and self.records.status()["state"] == "attached")

    def read(self, num_messages: int = 2) -> Record | None:
        found: Record | None = asyncio.run(
            self.records.ask(lambda fetch: fetch(CHAT, num_messages))
        )
        return found

    def write(self, make: Callable[[], Record] = lambda: RECORD) -> None:
        before = sum(self.counts.values())
        self.records.put(CHAT, make)
        assert eventually(lambda: sum(self.counts.values()) > before)


@pytest.fixture
def shared() -> Iterator[Shared]:
    shared = Shared(read_s=20.0)
    yield shared
    for valve in VALVES.values():
        valve.is_open.set()
    shared.records.close()


@pytest.fixture
def hasty() -> Iterator[Shared]:
    shared = Shared(read_s=0.05)
    yield shared
    for valve in VALVES.values():
        valve.is_open.set()
    shared.records.close()


def test_a_record_is_written_and_read(shared: Shared) -> None:
    shared.attach()
    assert shared.read() is None
    shared.write()
    assert shared.read() == RECORD
    assert shared.counts == {"stored": 1}


def test_nothing_else_is_left_in_the_store(shared: Shared) -> None:
    shared.attach()
    shared.write()
    (name,) = shared.valve.pages
    assert name.startswith(b"hist1-")


def test_without_a_namespace_nothing_is_read_or_written(shared: Shared) -> None:
    with pytest.raises(NoAnswer):
        shared.read()
    shared.write()
    assert shared.counts == {"failed": 1}
    assert shared.records.status()["state"] == "detached"


def is_attached(shared: Shared) -> bool:
    return shared.records.status()["state"] == "attached"


def test_each_namespace_has_its_own_records(shared: Shared) -> None:
    shared.attach()
    shared.write()
    shared.records.follow([OTHER])
    assert eventually(lambda: bytes.fromhex(OTHER) in VALVES and is_attached(shared))
    assert shared.read() is None
    assert eventually(lambda: shared.valve.num_closed == 1)


def test_a_namespace_that_is_none_is_told_and_the_next_one_is_followed(
    shared: Shared, caplog: pytest.LogCaptureFixture
) -> None:
    shared.records.follow(["not hexadecimal"])
    assert eventually(lambda: "not hexadecimal" in caplog.text)
    assert not is_attached(shared)
    shared.attach()
    assert is_attached(shared)


def test_of_several_namespaces_it_stays_with_the_one_it_has(shared: Shared) -> None:
    shared.attach()
    for namespaces in ([OTHER, ONE], []):
        shared.records.follow(namespaces)
    shared.write()
    assert bytes.fromhex(OTHER) not in VALVES and shared.read() == RECORD


def test_a_slow_read_is_given_up_and_after_some_none_is_tried(hasty: Shared) -> None:
    hasty.attach()
    hasty.valve.is_open.clear()
    for _ in range(3):
        with pytest.raises(NoAnswer):
            hasty.read()
    came = hasty.valve.num_waiting
    with pytest.raises(NoAnswer):
        hasty.read()
    assert hasty.valve.num_waiting == came


def test_only_slow_reads_in_a_row_count(shared: Shared) -> None:
    shared.attach()
    for _ in range(2):
        shared.records._read_s = 0.05
        shared.valve.is_open.clear()
        for _ in range(2):
            with pytest.raises(NoAnswer):
                shared.read()
        shared.valve.is_open.set()
        shared.records._read_s = 20.0
        assert shared.read() is None


def test_reads_that_wait_are_few_and_the_next_one_is_given_up_at_once(shared: Shared) -> None:
    async def read_many() -> tuple[list[object], float]:
        ask = shared.records.ask
        waiting = [asyncio.create_task(ask(lambda fetch: fetch(CHAT, 2))) for _ in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(NoAnswer, match="too many reads wait"):
            await ask(lambda fetch: fetch(CHAT, 2))
        shared.valve.is_open.set()
        found = await asyncio.gather(*waiting)
        await asyncio.sleep(0)
        return found, await ask(lambda fetch: 1.0)

    shared.attach()
    shared.valve.is_open.clear()
    assert asyncio.run(read_many()) == ([None] * 8, 1.0)


@pytest.mark.parametrize(("backend", "needs_torch"), [("dynamic", True), ("behind", False)])
def test_torch_can_be_imported_again_for_a_store_that_needs_it(
    backend: str, needs_torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    shared = Shared(read_s=20.0, backend=backend)
    shared.attach()
    shared.records.close()
    assert ("torch" not in sys.modules) == needs_torch


def test_a_store_that_errs_is_no_answer_and_a_failed_write(shared: Shared) -> None:
    shared.attach()
    shared.valve.error = RuntimeError("broken")
    with pytest.raises(NoAnswer):
        shared.read()
    shared.write()
    assert shared.counts == {"failed": 1}


def test_a_store_that_is_full_is_a_failed_write(shared: Shared) -> None:
    shared.attach()
    shared.valve.has_room = False
    shared.write()
    assert shared.counts == {"failed": 1}


def test_a_record_that_is_too_long_is_not_written(shared: Shared) -> None:
    shared.attach()
    noise = array("I", random.Random(1).choices(range(1 << 32), k=5000))
    shared.write(lambda: Record(0, (Segment(2, 10, False, noise),)))
    assert shared.counts == {"too_large": 1} and not shared.valve.pages


def test_what_waits_to_be_written_is_bounded(shared: Shared) -> None:
    shared.attach()
    shared.valve.is_open.clear()
    for _ in range(300):
        shared.records.put(CHAT, lambda: RECORD)
    assert shared.counts["dropped"] == 300 - 256


def test_a_record_that_cannot_be_made_is_a_failed_write(shared: Shared) -> None:
    def broken() -> Record:
        raise RuntimeError("no record")

    shared.attach()
    shared.write(broken)
    shared.write()
    assert shared.counts == {"failed": 1, "stored": 1}


def test_closing_writes_what_waits() -> None:
    shared = Shared(read_s=20.0)
    shared.attach()
    for _ in range(20):
        shared.records.put(CHAT, lambda: RECORD)
    shared.records.close()
    assert shared.counts == {"stored": 20} and shared.valve.num_closed == 1


def test_a_store_made_of_several_keeps_its_records_in_one() -> None:
    file: dict[str, Any] = {"backend": "file", "config": {"root": "/central"}}
    far = {"backend": "zones", "config": {"local": {**file, "config": {}}, "central": file}}
    chain = StoreAddress(backend="chain", config={"near": file, "far": far})
    assert record_store(chain) == StoreAddress(backend="file", config={})
    assert record_store(StoreAddress(backend="mooncake")).backend == "mooncake"


def test_the_router_opens_the_store_that_its_flags_name(tmp_path: Path) -> None:
    metrics = RouterMetrics()
    assert RouterStorage(RouterConfig(), metrics).records is None
    config = RouterConfig(
        hicache_storage_backend="file",
        hicache_storage_backend_extra_config={"root": str(tmp_path / "l3")},
    )
    records = RouterStorage(config, metrics).records
    assert records is not None
    records.follow([ONE])
    assert eventually(lambda: records.status()["state"] == "attached")
    records.put(CHAT, lambda: RECORD)
    records.close()
    assert b'kvloop_history_records_total{result="stored"} 1.0' in metrics.render([])


def test_a_wrong_setting_of_the_store_is_named_at_launch() -> None:
    config = RouterConfig(
        hicache_storage_backend="file", hicache_storage_backend_extra_config={"rot": "/x"}
    )
    with pytest.raises(ConfigError, match="rot"):
        RouterStorage(config, RouterMetrics())

"""Canaries one at a time, on demand and by schedule."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from canary_nodes import FakeNodes, node
from prometheus_client import CollectorRegistry

from kvloop.router.canary.runner import Canary
from kvloop.router.config import RouterConfig
from kvloop.router.nodes import NodeRegistry
from kvloop.shared_cache.wire import NodeRecord


class Model:
    """What the canary asks of the served model."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.node_model: str | None = "m"
        self.tokenizer = SimpleNamespace(vocab_size=4096)


class House:
    """A canary over fake nodes."""

    def __init__(self, *records: NodeRecord, **config: Any) -> None:
        self.registry, self.model, self.nodes = NodeRegistry(60), Model(), FakeNodes()
        for record in records:
            self.registry.update(record)
        self.metrics = CollectorRegistry()
        settings = {"canary_timeout_s": 2.0, **config}
        model: Any = self.model
        self.canary = Canary(RouterConfig(**settings), self.registry, model, self.metrics)
        self.canary.connect(self.nodes.probe)

    def runs(self, result: str) -> float | None:
        return self.metrics.get_sample_value("kvloop_canary_runs_total", {"result": result})

    @asynccontextmanager
    async def scheduled(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.canary.schedule())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self.canary.close()


def whole_house(**config: Any) -> House:
    return House(node("prefill"), node("decode"), **config)


async def eventually(check: Any) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.01)


async def test_a_canary_on_demand_is_kept_and_counted() -> None:
    house = whole_house()
    assert house.canary.last is None
    report = await house.canary.run("demand")
    assert (report.result, report.trigger) == ("whole", "demand")
    assert house.canary.last is report and not house.canary.is_running
    assert house.runs("whole") == 1


async def test_who_asks_while_one_is_under_way_gets_its_result() -> None:
    house = whole_house()
    house.nodes.gate = asyncio.Event()
    asked = [asyncio.create_task(house.canary.run("demand")) for _ in range(3)]
    await eventually(lambda: house.nodes.requests)
    assert house.canary.is_running
    house.nodes.gate.set()
    first, *others = await asyncio.gather(*asked)
    assert all(other is first for other in others)
    assert house.runs("whole") == 1
    assert await house.canary.run("demand") is not first


async def test_a_caller_who_goes_away_does_not_end_the_canary() -> None:
    house = whole_house()
    house.nodes.gate = asyncio.Event()
    caller = asyncio.create_task(house.canary.run("demand"))
    await eventually(lambda: house.nodes.requests)
    caller.cancel()
    await asyncio.sleep(0)
    house.nodes.gate.set()
    await eventually(lambda: house.canary.last is not None)


async def test_close_ends_the_one_that_is_under_way() -> None:
    house = whole_house()
    house.nodes.gate = asyncio.Event()
    caller = asyncio.create_task(house.canary.run("demand"))
    await eventually(lambda: house.nodes.requests)
    await house.canary.close()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not house.canary.is_running


async def test_the_schedule_starts_when_both_roles_are_there_and_goes_on() -> None:
    house = House(node("prefill"), canary_interval_s=5.0)
    async with house.scheduled():
        await asyncio.sleep(0.05)
        assert house.canary.last is None and not house.nodes.requests
        house.registry.update(node("decode"))
        await eventually(lambda: house.canary.last is not None)
        assert house.canary.last is not None and house.canary.last.trigger == "schedule"
    often = whole_house(canary_interval_s=0.01)
    async with often.scheduled():
        await eventually(lambda: (often.runs("whole") or 0) >= 3)


async def test_the_schedule_outlives_a_canary_that_raises() -> None:
    house = whole_house(canary_interval_s=0.01)
    turn, raised = house.nodes.turn, []

    async def raising(*args: Any) -> Any:
        house.nodes.turn = turn  # type: ignore[method-assign]
        raised.append(True)
        raise RuntimeError("not foreseen")

    house.nodes.turn = raising  # type: ignore[method-assign]
    async with house.scheduled():
        await eventually(lambda: house.runs("whole"))
    assert raised


async def test_nodes_that_never_come_are_reported_after_an_interval() -> None:
    house = House(node("decode"), canary_interval_s=0.05)
    async with house.scheduled():
        await eventually(lambda: house.canary.last is not None)
    assert house.canary.last is not None and house.canary.last.result == "broken"


async def test_without_an_interval_nothing_is_scheduled() -> None:
    house = whole_house()
    await asyncio.wait_for(house.canary.schedule(), 5)
    assert house.canary.last is None


@pytest.mark.parametrize(("missing", "there"), [("decode", "prefill"), ("prefill", "decode")])
async def test_a_role_without_a_ready_node_breaks_transfer_and_is_named(
    missing: Any, there: Any
) -> None:
    starting = msgspec.structs.replace(node(missing), ready=False)
    house = House(node(there), starting)
    report = await house.canary.run("demand")
    assert (report.result, report.broken_stage) == ("broken", "transfer")
    words = f"no {missing} node is ready; http://{missing}0:1 is starting"
    assert report.stages[0].reason == words
    assert [stage.state for stage in report.stages[1:]] == ["skipped", "skipped"]


async def test_a_decode_node_that_gets_no_kv_breaks_a_loop_whose_other_pair_is_whole() -> None:
    other = node("decode", 1, namespace="bb" * 32)
    house = House(node("prefill"), node("decode"), other)
    report = await house.canary.run("demand")
    assert len(report.pairs) == 1
    assert [stage.state for stage in report.pairs[0].stages] == ["ok", "ok", "ok"]
    assert report.broken_stage == "transfer"
    assert "namespaces differ" in report.stages[0].reason


async def test_every_pair_of_a_larger_loop_is_reported() -> None:
    house = House(*(node(role, i) for role in ("prefill", "decode") for i in range(3)))
    report = await house.canary.run("demand")
    assert report.result == "whole" and len(report.pairs) == 3
    assert {pair.decode for pair in report.pairs} == {f"http://decode{i}:1" for i in range(3)}


async def test_without_a_tokenizer_nothing_is_known() -> None:
    house = whole_house()
    house.model.problem = "the tokenizer is not loaded yet"
    report = await house.canary.run("demand")
    assert report.result == "unknown"
    assert {stage.reason for stage in report.stages} == {"the tokenizer is not loaded yet"}


async def test_nodes_of_another_model_are_not_part_of_the_loop() -> None:
    other = node("decode", 1, model="other", namespace="bb" * 32)
    house = House(node("prefill"), node("decode"), other)
    assert (await house.canary.run("demand")).result == "whole"


async def test_pairs_whose_turn_comes_too_late_are_unknown_and_not_broken() -> None:
    decodes = [node("decode", number) for number in range(6)]
    house = House(node("prefill"), *decodes, canary_timeout_s=0.4)
    house.nodes.gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.35, house.nodes.gate.set)
    report = await house.canary.run("demand")
    assert report.result == "unknown" and len(report.pairs) == 6
    for pair in report.pairs[4:]:
        assert {stage.state for stage in pair.stages} == {"unknown"}
        assert "no time was left" in pair.stages[0].reason
    assert len({request.cache_seed for request in house.nodes.requests}) == 4


async def test_a_canary_is_over_at_its_deadline() -> None:
    house = whole_house(canary_timeout_s=0.2)
    house.nodes.num_stored = 0
    house.nodes.num_held = 0
    report = await asyncio.wait_for(house.canary.run("demand"), 5)
    assert report.broken_stage == "write_back"

"""The load of a cluster, from two looks at what its nodes and routers count."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from kvloop.operator.autoscale.load import Loads
from kvloop.operator.autoscale.watch import LoadWatch
from kvloop.operator.errors import NodeError
from kvloop.operator.nodes.answers import Load, Node, RouterInfo
from kvloop.operator.nodes.client import NodeClient
from kvloop.operator.nodes.metrics import Samples, parse_metrics

ROUTERS = ["http://r0", "http://r1"]
BOUNDS = (0.01, 0.1, 1, 10)


class Process:
    """One that counts, and may be restarted or silent."""

    def __init__(self) -> None:
        self.is_silent = False
        self.restart()

    def restart(self) -> None:
        self.registry = CollectorRegistry()
        self.histograms = {
            name: Histogram(f"kvloop_{name}_seconds", name, buckets=BOUNDS, registry=self.registry)
            for name in ("queue", "step", "ttft", "itl")
        }

    def count(self, **values: list[float]) -> None:
        for name, each in values.items():
            for value in each:
                self.histograms[name].observe(value)


class World(NodeClient):
    """Routers and nodes as the client sees them."""

    def __init__(self) -> None:
        super().__init__(admin_key="key")
        self.processes = {url: Process() for url in (*ROUTERS, "http://p0", "http://d0")}
        self.nodes = [self.node("http://p0", "prefill"), self.node("http://d0", "decode")]

    def node(self, url: str, role: Any, state: Any = "ready", **load: int) -> Node:
        return Node(url=url, role=role, incarnation=url, state=state, load=Load(**load))

    async def router_info(self, url: str) -> RouterInfo:
        if self.processes[url].is_silent:
            raise NodeError(f"{url}: no answer")
        return RouterInfo(role="router", nodes=self.nodes)

    async def metrics(self, url: str) -> Samples:
        if self.processes[url].is_silent:
            raise NodeError(f"{url}: no answer")
        return parse_metrics(generate_latest(self.processes[url].registry).decode())


class Watched:
    def __init__(self) -> None:
        self.world, self.watch, self.now = World(), LoadWatch(), 1000.0

    async def look(self, after: float = 10.0) -> Loads:
        self.now += after
        return await self.watch.look(self.world, ROUTERS, self.now)

    def __getitem__(self, name: str) -> Process:
        return self.world.processes[f"http://{name}"]


@pytest.fixture
async def watched() -> Watched:
    """It has looked once, at what was counted long ago."""
    watched = Watched()
    for process in watched.world.processes.values():
        process.count(queue=[9.0] * 9, step=[9.0], ttft=[9.0] * 9, itl=[9.0] * 9)
    assert (await watched.look()).roles == {}, "nothing to compare with"
    return watched


async def test_waits_and_busy_shares_are_those_since_the_last_look(watched: Watched) -> None:
    watched["p0"].count(queue=[0.2, 0.4], step=[1.0, 2.0])
    found = await watched.look(10.0)
    prefill = found.roles["prefill"]
    assert (prefill.ready, prefill.begun, prefill.window_s) == (1, 2, 10.0)
    assert prefill.wait_s == pytest.approx(0.3) and prefill.busy_share == pytest.approx(0.3)
    assert found.roles["decode"].begun == 0 and found.roles["decode"].wait_s == 0


async def test_loads_of_now_are_what_a_router_knows(watched: Watched) -> None:
    pages = {"free_pages": 25, "total_pages": 100}
    watched.world.nodes[1] = watched.world.node(
        "http://d0", "decode", running=7, waiting=3, **pages
    )
    decode = (await watched.look()).roles["decode"]
    assert (decode.running, decode.waiting, decode.pool_share) == (7, 3, 0.75)


async def test_medians_are_over_all_routers_and_none_of_few(watched: Watched) -> None:
    watched["r0"].count(ttft=[0.05] * 4, itl=[0.005] * 2)
    watched["r1"].count(ttft=[5.0] * 6, itl=[0.005] * 2)
    found = await watched.look()
    assert found.ttft_s is not None and 1 < found.ttft_s < 10
    assert found.itl_s is None, "four observations tell nothing"


async def test_a_restarted_node_counts_from_nothing(watched: Watched) -> None:
    watched["p0"].restart()
    watched["p0"].count(queue=[0.2])
    prefill = (await watched.look()).roles["prefill"]
    assert prefill.begun == 1 and prefill.wait_s == pytest.approx(0.2)


async def test_a_role_of_which_a_node_is_not_known_is_left_out(watched: Watched) -> None:
    watched["p0"].is_silent = True
    assert set((await watched.look()).roles) == {"decode"}
    watched["p0"].is_silent = False
    watched.world.processes["http://p1"] = Process()
    watched.world.nodes.append(watched.world.node("http://p1", "prefill"))
    assert set((await watched.look()).roles) == {"decode"}, "p1 was seen once only"
    assert (await watched.look()).roles["prefill"].ready == 2


async def test_nodes_that_get_no_requests_do_not_count(watched: Watched) -> None:
    watched.world.nodes.append(watched.world.node("http://p9", "prefill", "lost"))
    assert (await watched.look()).roles["prefill"].ready == 1


async def test_looks_that_follow_each_other_quickly_are_compared_with_older_ones(
    watched: Watched,
) -> None:
    assert (await watched.look(2.0)).roles == {}
    watched["p0"].count(queue=[0.2])
    assert (await watched.look(4.0)).roles["prefill"].window_s == 6.0
    assert (await watched.look(50.0)).roles["prefill"].window_s == 56.0
    assert (await watched.look(30.0)).roles["prefill"].window_s == 30.0, "a minute at most"


async def test_any_router_that_answers_will_do_and_none_is_told(watched: Watched) -> None:
    watched["r0"].is_silent = True
    assert set((await watched.look()).roles) == {"prefill", "decode"}
    watched["r1"].is_silent = True
    with pytest.raises(NodeError, match="the load is not known: http://r1: no answer"):
        await watched.look()

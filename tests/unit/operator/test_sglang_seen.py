"""What is seen of a cluster of engine sglang."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from pd_clusters import KEYS, SETTINGS
from sglang_clusters import MOONCAKE, sglang
from sglang_server import PAGE, SGLangServer

from kvloop.operator.build.pd_cluster import Context, context_of
from kvloop.operator.clusters import sglang as seen_of
from kvloop.operator.clusters.seen import Seen
from kvloop.operator.clusters.sglang import Probes, ask_sglang, probe_target
from kvloop.operator.errors import NodeError
from kvloop.operator.names import COMPONENT, REVISION
from kvloop.operator.nodes.answers import CanaryReport, LastCanary
from kvloop.operator.nodes.client import NodeClient
from kvloop.operator.nodes.metrics import Samples, parse_metrics
from kvloop.operator.probe.run import Target
from kvloop.operator.types.pd_cluster import Canary

REPORT = CanaryReport(result="whole", started_at=5.0)
METRICS = """\
# TYPE sglang:prompt_tokens counter
sglang:prompt_tokens_total{model_name="m"} 100
# TYPE sglang:cached_tokens counter
sglang:cached_tokens_total{cache_source="device"} 10
sglang:cached_tokens_total{cache_source="host"} 20
sglang:cached_tokens_total{cache_source="storage"} 30
"""


def context(**spec: Any) -> Context:
    wanted = sglang(sharedCacheRef={"name": "c"}, **spec)
    return context_of(wanted, {"c": MOONCAKE}, KEYS, SETTINGS)


def pod(role: str, revision: str, *, runs: bool = True) -> dict[str, Any]:
    ready = {"type": "ContainersReady", "status": "True" if runs else "False"}
    return {
        "metadata": {"name": f"{role}-{revision}", "labels": {COMPONENT: role, REVISION: revision}},
        "status": {"podIP": "10.0.0.1", "conditions": [ready]},
    }


def seen(*pods: dict[str, Any]) -> Seen:
    return Seen(deployments={}, pods=pods)


class Scraped(NodeClient):
    """Nodes whose metrics are known."""

    def __init__(self, text: str | None) -> None:
        super().__init__()
        self.text = text
        self.urls: list[str] = []

    async def metrics(self, url: str) -> Samples:
        self.urls.append(url)
        if self.text is None:
            raise NodeError("away")
        return parse_metrics(self.text)


def asked(text: str | None, at: Context | None, *pods: dict[str, Any]) -> Any:
    last = LastCanary(running=False, last=REPORT)
    return asyncio.run(ask_sglang(Scraped(text), at, seen(*pods), last))


def test_the_hit_rate_is_of_prefills_own_counters() -> None:
    client = Scraped(METRICS)
    pods = seen(pod("prefill", "r"), pod("decode", "r"), pod("prefill", "q", runs=False))
    found = asyncio.run(ask_sglang(client, None, pods, LastCanary(running=False)))
    assert client.urls == ["http://10.0.0.1:30000"]
    assert found.tokens is not None and found.tokens.hit_rate == pytest.approx(0.6)
    assert (found.tokens.host, found.tokens.storage) == (20, 30)


@pytest.mark.parametrize("text", [None, "# TYPE a counter\na_total 1\n"])
def test_without_counters_there_is_no_hit_rate(text: str | None) -> None:
    assert asked(text, None, pod("prefill", "r")).tokens is None


def test_the_last_probe_stands_for_a_routers_canary() -> None:
    assert asked(METRICS, None).canaries == [LastCanary(running=False, last=REPORT)]


def test_the_cache_is_attached_once_all_nodes_are_of_the_newest_generation() -> None:
    at = context()
    new, old = (pod(role, at.generation) for role in ("prefill", "decode")), pod("decode", "old")
    prefill, decode = new
    assert asked(METRICS, at, prefill, decode).attached.attached == (
        prefill["metadata"]["name"],
        decode["metadata"]["name"],
    )
    assert asked(METRICS, at, prefill, decode, old).attached.attached == ()
    starting = pod("decode", at.generation, runs=False)
    assert asked(METRICS, at, prefill, starting).attached.attached == ()
    assert asked(METRICS, at).attached.attached == ()


def test_a_probe_asks_a_router_that_serves_and_counts_on_running_nodes() -> None:
    pods = (
        pod("router", "r"),
        pod("prefill", "r"),
        pod("decode", "r"),
        pod("decode", "q", runs=False),
    )
    target = probe_target(
        context(model={"claim": {"claim": "m"}, "servedName": "chat"}), seen(*pods)
    )
    assert target == Target(
        router="http://10.0.0.1:8000",
        model="chat",
        page_size=64,
        prefills=["http://10.0.0.1:30000"],
        decodes=["http://10.0.0.1:30000"],
        has_storage=True,
    )
    assert probe_target(context(), seen(pod("router", "r", runs=False))) is None
    without = probe_target(context(offload={"enabled": False}), seen(*pods))
    assert without is not None and without.has_storage is False


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_probes_run_by_schedule_and_sooner_after_a_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run_probe(target: Target, *, timeout_s: float) -> CanaryReport:
        assert timeout_s == 60
        await asyncio.sleep(0)
        return REPORT

    monkeypatch.setattr(seen_of, "run_probe", run_probe)
    clock = Clock()
    probes, target = Probes(clock), Target(router="u", model="m", page_size=PAGE)

    def start(*, is_wanted: bool = False) -> bool:
        return probes.start("ns/a", target, Canary(interval_seconds=30), is_wanted=is_wanted)

    assert probes.last("ns/a") == LastCanary(running=False)
    assert start()
    assert probes.last("ns/a").running and not start(is_wanted=True)
    await asyncio.sleep(0.01)
    assert probes.last("ns/a") == LastCanary(running=False, last=REPORT)
    assert not start(is_wanted=True)  # ten seconds at least
    clock.now += 11
    assert not start() and start(is_wanted=True)
    await asyncio.sleep(0.01)
    clock.now += 31
    assert start()
    assert probes.start("ns/b", target, Canary(), is_wanted=False)  # of another cluster
    await probes.close()


async def test_a_closed_operator_leaves_no_probe_behind() -> None:
    server, probes = SGLangServer(), Probes()
    async with TestServer(server.app()) as up:
        target = Target(router=str(up.make_url("")).rstrip("/"), model="m", page_size=PAGE)
        assert probes.start("k", target, Canary(), is_wanted=True)
        await asyncio.sleep(0)
        await probes.close()
    assert not probes.last("k").running

"""All four arms against kvloop's real processes: each is what it says, and the report says so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hicache_loop import VOCAB, small_model
from running import Cluster

from kvloop.benchmark.arms import ARMS
from kvloop.benchmark.driver.api import open_session
from kvloop.benchmark.driver.drive import drive
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.node_seconds import NodeSeconds, find_metrics
from kvloop.benchmark.results.build import About, build_report
from kvloop.benchmark.results.document import ArmResult, Report
from kvloop.benchmark.sample import Sources
from kvloop.benchmark.schedule import plan_segments
from kvloop.benchmark.workloads.multi_turn import MultiTurn

pytestmark = pytest.mark.integration
LOAD = MultiTurn(
    num_conversations=6,
    turns=2,
    request_length=200,
    output_length=8,
    id_range=(10, VOCAB),
    think_s=(0.4, 0.5),  # for what is still written to L3
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run, and what its nodes computed by their own account."""

    report: Report
    nodes: NodeSeconds

    def arm(self, name: str) -> ArmResult:
        (found,) = [arm for arm in self.report.arms if arm.arm == name]
        return found

    def sources(self, name: str) -> Sources:
        found = self.arm(name).later_turns.sources
        assert found is not None
        return found


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    model = small_model(tmp_path_factory.mktemp("model"))
    with Cluster(tmp_path_factory.mktemp("arms"), model) as cluster:
        start(cluster)
        return asyncio.run(measure(cluster.url))


def start(cluster: Cluster) -> None:
    cluster.file_cache()
    router = cluster.router()
    nodes = [cluster.node("prefill"), cluster.node("decode")]
    for running in (*nodes, router):
        running.wait_ready()


async def measure(url: str) -> Measured:
    plan = plan_segments(LOAD, ARMS, (), 2, "run", 0, clients=3)
    nodes = NodeSeconds(find_metrics(url))
    async with open_session() as http:
        target = Target(url=url, model="m", content=LOAD.content)
        driven = await drive(http, target, LOAD, plan, DriveOptions(clients=3), nodes)
    about = About(title="t", command="c", version="0", hardware="none", server_url=url, model="m")
    report = build_report(
        about=about,
        workload=LOAD,
        plan=plan,
        driven=driven,
        node_seconds=nodes.spent,
        price_per_gpu_hour=2.0,
        more_warnings=nodes.problems,
    )
    return Measured(report=report, nodes=nodes)


def test_every_request_of_every_arm_is_answered(measured: Measured) -> None:
    assert [arm.counts.completed for arm in measured.report.arms] == [12] * 4
    assert measured.report.failures == ()


def test_the_cache_hits_what_it_can_and_the_controls_hit_nothing(measured: Measured) -> None:
    on = measured.arm("on").later_turns
    assert on.cached_tokens is not None and on.cached_tokens > 0.8 * on.reusable_tokens
    assert measured.arm("bypassed").all.cached_tokens == 0
    assert measured.arm("all_miss").all.cached_tokens == 0


def test_no_arm_warms_another(measured: Measured) -> None:
    for arm in measured.report.arms:
        assert arm.turns[0].summary.cached_tokens == 0


def test_l3_alone_gives_from_l3_alone(measured: Measured) -> None:
    sources = measured.sources("l3_only")
    assert sources.storage > 0
    assert (sources.device, sources.host) == (0, 0)
    assert measured.sources("on").device + measured.sources("on").transfer_skipped > 0


def test_the_arms_give_the_same_answers(measured: Measured) -> None:
    assert measured.report.answers_compared == 12
    assert measured.report.answers_different == 0


def test_the_nodes_own_seconds_are_found_through_the_router(measured: Measured) -> None:
    assert len(measured.nodes.urls) == 2
    assert len(measured.nodes.spent) == 8 and measured.nodes.problems == ()
    assert all(spent.seconds > 0 for spent in measured.nodes.spent)
    savings = measured.report.savings
    assert savings is not None and savings.how.startswith("measured")


def test_nothing_is_called_a_fault_of_reuse_or_of_the_controls(measured: Measured) -> None:
    for words in ("REUSE", "no control", "began warm", "above the"):
        assert not [line for line in measured.report.warnings if words in line]

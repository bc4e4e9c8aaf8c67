"""The operator's probe at a real loop: kvloop's router and nodes answer as its two turns ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from chat_models import chat_model
from faults import FLAGS, PAGE
from running import Cluster, Running

from kvloop.operator.probe.run import Target, run_probe

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A router, a prefill and a decode node over a directory."""

    target: Target
    prefill: Running
    decode: Running


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    directory: Path = tmp_path_factory.mktemp("probed")
    with Cluster(directory, chat_model(directory / "model"), *FLAGS) as cluster:
        cluster.file_cache()
        router = cluster.router()
        prefill, decode = cluster.node("prefill"), cluster.node("decode")
        for running in (prefill, decode, router):
            running.wait_ready()
        target = Target(
            router=cluster.url,
            model="m",
            page_size=PAGE,
            prefills=[prefill.url],
            decodes=[decode.url],
        )
        yield Loop(target=target, prefill=prefill, decode=decode)


def test_a_real_loop_reuses_what_decode_wrote_and_counters_it_has_not_stay_unknown(
    loop: Loop,
) -> None:
    report = asyncio.run(run_probe(loop.target, timeout_s=120))
    states = {stage.stage: stage.state for stage in report.stages}
    # No node of kvloop's has SGLang's counter of transfers.
    assert states == {"transfer": "unknown", "write_back": "ok", "reuse": "ok"}, report
    assert report.stage("transfer").is_observable is False
    assert report.result == "unknown"
    found, _, expected = report.stage("reuse").reason.split()[:3]
    assert int(found) >= 3 and int(expected) >= 3


def test_a_model_that_is_not_there_is_told_in_the_routers_words(loop: Loop) -> None:
    report = asyncio.run(run_probe(replace(loop.target, model="nobody"), timeout_s=60))
    assert report.broken_stage == "transfer"
    assert "nobody" in report.stage("transfer").reason


def test_a_node_that_is_gone_breaks_the_loop(loop: Loop) -> None:
    loop.decode.kill()
    report = asyncio.run(run_probe(loop.target, timeout_s=20))
    assert (report.result, report.broken_stage) == ("broken", "transfer")
    assert "turn 1 was not answered" in report.stage("transfer").reason

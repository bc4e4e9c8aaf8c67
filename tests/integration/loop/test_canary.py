"""The canary in real loops: whole where KV goes round, and the stage named where it stops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zeroing_prefill
from admin import ask
from faults import FLAGS, Loop, known_nodes, start_loop
from hicache_loop import wait_attached
from running import ADMIN, Cluster, Running, fetch, wait_for

pytestmark = pytest.mark.integration
ZEROING = str(zeroing_prefill.__file__)


@pytest.fixture(scope="module")
def loop(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with Cluster(tmp_path_factory.mktemp("canary"), model) as cluster:
        cluster.file_cache()
        started = start_loop(cluster)
        wait_attached(*started.nodes)
        yield started


@pytest.fixture
def cluster(model: str, tmp_path: Path) -> Iterator[Cluster]:
    """To be broken."""
    with Cluster(tmp_path, model, *FLAGS) as own:
        own.file_cache()
        yield own


def canary(url: str) -> dict[str, Any]:
    status, report = fetch(f"{url}/canary", {}, {"Authorization": f"Bearer {ADMIN}"})
    assert status == 200, report
    answer: dict[str, Any] = report
    return answer


def states(report: dict[str, Any]) -> list[str]:
    return [stage["state"] for stage in report["stages"]]


def reason(report: dict[str, Any]) -> str:
    """Of the stage that broke."""
    (broken,) = [s for s in report["stages"] if s["stage"] == report["broken_stage"]]
    return str(broken["reason"])


def command(url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """`kvloop canary URL`."""
    argv = [sys.executable, "-m", "kvloop.cli", "canary", url, *flags]
    env = {**os.environ, "KVLOOP_ADMIN_API_KEY": ADMIN}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=180, check=False)


def detached(loop: Loop, node: Running, meanwhile: Callable[[], None]) -> None:
    """Do something while a node has no L3."""
    assert ask(node, "DELETE")[0] == 200
    try:
        meanwhile()
    finally:
        body = {
            "hicache_storage_backend": "file",
            "hicache_storage_backend_extra_config_json": json.dumps(
                {"root": str(loop.cluster.directory / "l3")}
            ),
        }
        assert ask(node, "PUT", body=body)[0] == 200
        wait_attached(node)


def test_a_loop_that_is_whole_is_found_whole_and_every_page_is_counted(loop: Loop) -> None:
    report = canary(loop.url)
    assert (report["result"], states(report)) == ("whole", ["ok", "ok", "ok"]), report
    transfer, write_back, reuse = report["stages"]
    assert transfer["found"] == {"pages": 3}
    assert write_back["found"] == reuse["found"] == {"pages": 8, "by_decode": 5}
    assert fetch(f"{loop.url}/canary")[1] == {"running": False, "last": report}


def test_a_canary_leaves_no_page_in_the_shared_cache(loop: Loop) -> None:
    canary(loop.url)
    left = [path for path in (loop.cluster.directory / "l3").rglob("kvl1-*") if path.is_file()]
    assert left == []


def test_the_command_ends_with_1_and_names_the_stage_where_decode_has_lost_l3(loop: Loop) -> None:
    def check() -> None:
        done = command(loop.url)
        assert done.returncode == 1, done
        wanted = "broken at stage write_back: L3 is detached on decode"
        assert wanted in done.stderr and "write_back" in done.stdout, done
        assert loop_metric(loop, "kvloop_canary_stage", stage="write_back", state="failed") == 1

    detached(loop, loop.decodes[0], check)
    done = command(loop.url, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["result"] == "whole", done
    assert loop_metric(loop, "kvloop_canary_stage", stage="write_back", state="ok") == 1


def test_a_prefill_node_that_has_lost_l3_breaks_reuse(loop: Loop) -> None:
    def check() -> None:
        report = canary(loop.url)
        assert states(report) == ["ok", "ok", "failed"], report
        assert "L3 is detached on prefill" in reason(report), report

    detached(loop, loop.prefills[0], check)


def loop_metric(loop: Loop, name: str, **labels: str) -> float:
    front = next(one for one in loop.cluster.started if one.url == loop.url)
    return front.metric(name, **labels)


@pytest.mark.slow
def test_a_canary_leaves_no_tail_either(cluster: Cluster) -> None:
    report = broken(cluster, ("--tail-objects",))
    assert report["result"] == "whole", report
    decode = next(one for one in cluster.started if "decode" in one.log.stem)
    assert decode.metric("kvloop_tail_tokens_total", result="stored") > 0
    assert [path for path in (cluster.directory / "l3").rglob("kvl1-*") if path.is_file()] == []


# --- breakages that need nodes of their own -------------------------------------------------------


def broken(cluster: Cluster, decode: tuple[str, ...] = (), **prefill: Any) -> dict[str, Any]:
    """A canary's report of a loop whose nodes were started so."""
    front = cluster.router()
    nodes = [cluster.node("prefill", **prefill), cluster.node("decode", *decode)]
    for running in (*nodes, front):
        running.wait_ready()
    wait_for("the router's notice", lambda: known_nodes(cluster.url) == 2)
    return canary(cluster.url)


@pytest.mark.slow
def test_a_decode_node_without_a_backend_breaks_write_back(cluster: Cluster) -> None:
    front, prefill = cluster.router(), cluster.node("prefill")
    cluster.storage = []
    decode = cluster.node("decode")
    for running in (prefill, decode, front):
        running.wait_ready()
    wait_for("the router's notice", lambda: known_nodes(cluster.url) == 2)
    report = canary(cluster.url)
    assert states(report) == ["ok", "failed", "skipped"], report
    assert reason(report).startswith("offload is off: decode http://"), report


@pytest.mark.slow
def test_namespaces_that_differ_break_transfer(cluster: Cluster) -> None:
    report = broken(cluster, ("--release-tag", "another"))
    assert states(report) == ["failed", "skipped", "skipped"], report
    digests = {node["namespace"][:12] for node in fetch(f"{cluster.url}/server_info")[1]["nodes"]}
    assert len(digests) == 2 and all(digest in reason(report) for digest in digests), report
    assert "namespaces differ" in reason(report), report


@pytest.mark.slow
def test_page_sizes_that_differ_break_transfer(cluster: Cluster) -> None:
    report = broken(cluster, ("--page-size", "64"))
    assert report["broken_stage"] == "transfer"
    assert "page sizes differ: prefill 16, decode 64" in reason(report), report


@pytest.mark.slow
def test_zeros_whose_checksums_match_are_found_by_their_content(cluster: Cluster) -> None:
    report = broken(cluster, program=(ZEROING, "read"))
    assert report["broken_stage"] == "transfer"
    assert "page 0 is all zeros" in reason(report), report


@pytest.mark.slow
def test_zeros_that_arrive_in_place_of_what_was_sent_are_found(cluster: Cluster) -> None:
    report = broken(cluster, program=(ZEROING, "arrive"))
    assert report["broken_stage"] == "transfer"
    assert "decode computed the prompt itself: checksum" in reason(report), report


@pytest.mark.slow
def test_every_node_of_a_larger_loop_is_checked_and_turn_2_reads_elsewhere(
    cluster: Cluster,
) -> None:
    flags = ("--canary-interval-s", "600")
    front = cluster.router(*flags)
    nodes = [cluster.node(role) for role in ("prefill", "prefill", "decode")]
    for running in (*nodes, front):
        running.wait_ready()
    wait_for("the first by schedule", lambda: fetch(f"{cluster.url}/canary")[1]["last"], 60)
    assert fetch(f"{cluster.url}/canary")[1]["last"]["trigger"] == "schedule"
    wait_for("the router's notice", lambda: known_nodes(cluster.url) == 3)
    wait_attached(*nodes)
    report = canary(cluster.url)
    assert report["result"] == "whole", report
    urls = {node.url for node in nodes[:2]}
    assert {pair["prefill"] for pair in report["pairs"]} == urls
    assert all(pair["reader"] != pair["prefill"] for pair in report["pairs"])

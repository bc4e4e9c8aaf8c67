"""A ConfigMap is applied with a deadline: what is retried, what is not, and what is told."""

import asyncio
from pathlib import Path

import pytest
from api_server import api_server
from bench_reports import make_report

from kvloop.benchmark.outlets import apply as applying
from kvloop.benchmark.outlets.apply import OutletError, apply
from kvloop.benchmark.outlets.config_map import ConfigMapTarget, write_config_map
from kvloop.benchmark.outlets.in_cluster import InCluster

pytestmark = pytest.mark.integration
OBJECT = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "run-1", "namespace": "bench"},
    "data": {"a": "b\x7f\u2028"},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "TRIES_APART_S", 0.05)


async def test_it_is_one_server_side_apply_under_the_pods_token(tmp_path: Path) -> None:
    async with api_server(tmp_path, 200) as server:
        await asyncio.to_thread(apply, OBJECT, server.cluster, 10.0)
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("PATCH", "/api/v1/namespaces/bench/configmaps/run-1")
    assert seen.query == {"fieldManager": "kvloop-bench", "force": "true"}
    assert seen.headers["Content-Type"] == "application/apply-patch+yaml"
    assert seen.headers["Authorization"] == "Bearer t0"
    assert seen.body == OBJECT


async def test_the_whole_report_arrives_in_it(tmp_path: Path) -> None:
    report = make_report(1, arms=("on",), conversations=3, turns=2)
    async with api_server(tmp_path, 201) as server:
        target = ConfigMapTarget(cluster=server.cluster, namespace="bench", name="run-1")
        content = await asyncio.to_thread(write_config_map, report, "<p>", b"{}", target)
    assert content.left_out == ()
    assert server.seen[0].body["data"]["report.html"] == "<p>"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_busy_server_is_asked_again(tmp_path: Path, status: int) -> None:
    async with api_server(tmp_path, status, status, 200) as server:
        await asyncio.to_thread(apply, OBJECT, server.cluster, 10.0)
    assert len(server.seen) == 3


async def test_a_server_that_stays_busy_ends_at_the_deadline_with_its_words(
    tmp_path: Path,
) -> None:
    async with api_server(tmp_path, 503) as server:
        with pytest.raises(OutletError, match=r"not done within 3 s.*HTTP 503: said 503"):
            await asyncio.to_thread(apply, OBJECT, server.cluster, 3.0)
    assert len(server.seen) > 1


async def test_missing_rights_are_told_with_those_that_are_needed(tmp_path: Path) -> None:
    async with api_server(tmp_path, 403) as server:
        with pytest.raises(OutletError, match=r"HTTP 403: said 403 .*create and patch on config"):
            await asyncio.to_thread(apply, OBJECT, server.cluster, 10.0)
    assert len(server.seen) == 1


@pytest.mark.parametrize(("status", "words"), [(401, "token is not accepted"), (404, "said 404")])
async def test_what_no_other_try_mends_is_told_at_once(
    tmp_path: Path, status: int, words: str
) -> None:
    async with api_server(tmp_path, status) as server:
        with pytest.raises(OutletError, match=words):
            await asyncio.to_thread(apply, OBJECT, server.cluster, 10.0)
    assert len(server.seen) == 1


async def test_a_server_that_another_authority_signed_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with api_server(tmp_path, 200) as server, api_server(tmp_path / "other", 200) as other:
        cluster = InCluster(url=server.cluster.url, mount=other.cluster.mount)
        with pytest.raises(OutletError, match="certificate verify failed"):
            await asyncio.to_thread(apply, OBJECT, cluster, 30.0)
    assert server.seen == []


async def test_a_server_that_is_away_ends_at_the_deadline(tmp_path: Path) -> None:
    async with api_server(tmp_path, 200) as server:
        gone = server.cluster
    with pytest.raises(OutletError, match=r"not done within 3 s.*Cannot connect"):
        await asyncio.to_thread(apply, OBJECT, gone, 3.0)


async def test_a_token_that_is_gone_is_told(tmp_path: Path) -> None:
    async with api_server(tmp_path, 200) as server:
        (tmp_path / "token").unlink()
        with pytest.raises(OutletError, match=r"not done within 0.3 s.*/token"):
            await asyncio.to_thread(apply, OBJECT, server.cluster, 0.3)

"""The loop on every backend: the next turn reads decode's pages, and prefill's, from L3."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from admin import storage
from hf3fs_library import STAND_IN, make_mount
from loop_client import complete
from running import EXACT, Cluster, Running, drained, free_port, wait_for

pytestmark = pytest.mark.integration
PAGE = 16
PROMPT, ANSWER, NEW = 100, 84, 30
BY_PREFILL = PROMPT // PAGE
BY_DECODE = (PROMPT + ANSWER - 1) // PAGE - BY_PREFILL  # the last sampled token has no KV
SUPPORT = Path(__file__).parents[2] / "support"

Config = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Shared:
    """How each role reaches the store that they share."""

    backend: str
    prefill: Config
    decode: Config


def alike(backend: str, **config: Any) -> Shared:
    return Shared(backend=backend, prefill=config, decode=config)


def files(cluster: Cluster, name: str) -> Config:
    return {"backend": "file", "config": {"root": str(cluster.directory / name)}}


def mooncake(cluster: Cluster) -> Config:
    port = free_port()
    cluster.mooncake(port)
    return {"backend": "mooncake", "config": {"master_server_address": f"127.0.0.1:{port}"}}


def hf3fs(cluster: Cluster, io: str) -> Shared:
    mount = str(make_mount(cluster.directory / "3fs"))
    return alike("hf3fs", mount=mount, require_mount=False, io=io)


def nixl_files(cluster: Cluster) -> Shared:
    return alike("nixl", plugin="POSIX", root=str(cluster.directory / "l3"))


def nixl_memory(cluster: Cluster) -> Shared:
    port = str(free_port())
    cluster.start("nixl-store", "nixl-store", "--port", port, "--segment-size", "0.1")
    return alike("nixl", plugin="UCX", server=f"127.0.0.1:{port}")


def aibrix(cluster: Cluster) -> Shared:
    return alike("aibrix", l2_cache_backend="SHFS", root=str(cluster.directory / "l3"))


def dynamic(cluster: Cluster) -> Shared:
    return alike(
        "dynamic",
        backend_name="plain",
        module_path="dynamic_backends.plain_files",
        class_name="PlainFiles",
        directory=str(cluster.directory / "l3"),
    )


def chain(cluster: Cluster) -> Shared:
    """Each node has a near store of its own."""
    far = mooncake(cluster)
    return Shared(
        backend="chain",
        prefill={"near": files(cluster, "near-prefill"), "far": far},
        decode={"near": files(cluster, "near-decode"), "far": far},
    )


def one_site(cluster: Cluster) -> Shared:
    return alike(
        "zones", zone="edge-a", local=files(cluster, "edge"), central=files(cluster, "central")
    )


def two_sites(cluster: Cluster) -> Shared:
    """Decode's pages reach prefill by way of the central store."""
    central = mooncake(cluster)
    return Shared(
        backend="zones",
        prefill={"zone": "core", "local": files(cluster, "core"), "central": central},
        decode={"zone": "edge-a", "local": files(cluster, "edge"), "central": central},
    )


STORES: dict[str, Callable[[Cluster], Shared]] = {
    "hf3fs by posix": lambda cluster: hf3fs(cluster, "posix"),
    "hf3fs by usrbio's stand-in": lambda cluster: hf3fs(cluster, "usrbio"),
    "nixl files": nixl_files,
    "nixl memory": nixl_memory,
    "aibrix": aibrix,
    "dynamic with SGLang's interface": dynamic,
    "chain": chain,
    "zones, one site": one_site,
    "zones, two sites": two_sites,
}
LIBRARIES = {"nixl": "nixl_cu12", "aibrix": "aibrix_kvcache"}


@pytest.fixture(params=STORES)
def nodes(
    request: pytest.FixtureRequest,
    tiny_models: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[str, Running, Running]]:
    """The router's URL, a prefill and a decode node."""
    if library := LIBRARIES.get(request.param.split()[0]):
        pytest.importorskip(library)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), str(STAND_IN)]))
    modules = ("--hicache-dynamic-modules", "dynamic_backends.plain_files")
    flags = ("--dtype", "float32", "--page-size", str(PAGE), *EXACT, *modules)
    with Cluster(tmp_path, tiny_models["llama"], *flags) as cluster:
        shared = STORES[request.param](cluster)
        cluster.share(shared.backend, shared.prefill)
        prefill = cluster.node("prefill")
        cluster.share(shared.backend, shared.decode)
        decode, router = cluster.node("decode"), cluster.router()
        for running in (prefill, decode, router):
            running.wait_ready()
        for node in (prefill, decode):
            wait_for("L3", lambda node=node: storage(node)["state"] == "attached")
        yield cluster.url, prefill, decode


def is_stored(*nodes: Running) -> bool:
    """Whether nothing waits, neither for L3 nor, in zones, for the central store."""
    stats = [storage(node)["stats"] for node in nodes]
    return drained(*nodes) and not any(stat.get("backlog", 0) for stat in stats)


def test_the_second_turn_of_a_chat_reads_every_page_of_the_first_from_the_backend(
    nodes: tuple[str, Running, Running], random_ids: Random
) -> None:
    url, prefill, decode = nodes
    prompt = [random_ids.randrange(1000, 20000) for _ in range(PROMPT)]
    first = complete(url, prompt, ANSWER)
    wait_for("the drain", lambda: is_stored(prefill, decode))
    question = first.history + [random_ids.randrange(1000, 20000) for _ in range(NEW)]
    second = complete(url, question, 40, cache="l3_only")
    assert (second.by_prefill // PAGE, second.by_decode // PAGE) == (BY_PREFILL, BY_DECODE)
    assert second.sources["computed"] == len(question) - (BY_PREFILL + BY_DECODE) * PAGE
    assert second.ids == complete(url, question, 40, cache="off").ids
    for node in (prefill, decode):
        assert storage(node)["state"] == "attached"
        assert node.metric("kvloop_faults_total") == 0

"""Loops to be broken: starts them, asks in the background, and tells when all is free again."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil
from loop_client import Answer, complete
from running import SECRET, Cluster, Running, fetch, wait_for

PAGE = 16
FLAGS = (
    *("--dtype", "float32", "--page-size", str(PAGE), "--threads", "1"),
    *("--hicache-storage-prefetch-policy", "wait_complete"),
)
THREADS = ThreadPoolExecutor(32)


@dataclass
class Loop:
    cluster: Cluster
    prefills: list[Running]
    decodes: list[Running]

    @property
    def url(self) -> str:
        return self.cluster.url

    @property
    def nodes(self) -> list[Running]:
        return [*self.prefills, *self.decodes]

    def wait_idle(self, timeout_s: float = 30.0) -> None:
        """All living nodes have every page back and nothing to do."""
        alive = [node for node in self.nodes if node.process.poll() is None]
        wait_for("idleness", lambda: all(map(is_idle, alive)), timeout_s)

    def working_prefill(self, pages: int = 8) -> Running:
        """The node that has pushed some pages of the request in flight, when it has."""
        before = {node.url: sent_pages(node) for node in self.prefills}

        def busy() -> Running | None:
            for node in self.prefills:
                if sent_pages(node) >= before[node.url] + pages:
                    return node
            return None

        node: Running = wait_for("the first pages", busy)
        return node


def start_loop(
    cluster: Cluster,
    *,
    prefills: Sequence[tuple[str, ...]] = ((),),
    decodes: Sequence[tuple[str, ...]] = ((),),
    router: tuple[str, ...] = (),
) -> Loop:
    """Start nodes with these flags, and wait until the router knows them all."""
    front = cluster.router(*router)
    loop = Loop(
        cluster,
        [cluster.node("prefill", *FLAGS, *flags) for flags in prefills],
        [cluster.node("decode", *FLAGS, *flags) for flags in decodes],
    )
    for running in (*loop.nodes, front):
        running.wait_ready()
    wait_for("the router's notice", lambda: known_nodes(cluster.url) >= len(loop.nodes))
    return loop


def known_nodes(url: str, incarnation: str = "") -> int:
    """Nodes that the router may send requests to; none while it does not know this one."""
    _, info = fetch(f"{url}/server_info")
    if incarnation not in str(info):
        return 0
    return sum(node["state"] == "ready" for node in info["nodes"])


def load(node: Running) -> dict[str, Any]:
    answer: dict[str, Any] = node.info()["node"]["load"]
    return answer


def is_idle(node: Running) -> bool:
    now = load(node)
    busy = now["running"] + now["waiting"] + now["quarantined_pages"]
    return not busy and now["free_pages"] == now["total_pages"]


def sent_pages(node: Running) -> float:
    """Pages whose first layer a prefill node has pushed."""
    return node.metric("kvloop_pages_total", path="hand_off", result="sent")


def prompt_of(length: int, seed: int = 0) -> list[int]:
    """Token ids that depend on length and seed only."""
    return random.Random(f"{length} {seed}").choices(range(100, 40000), k=length)


def asking(url: str, prompt: Sequence[int], **fields: Any) -> Future[Answer]:
    """An answer to come."""
    return THREADS.submit(complete, url, prompt, **fields)


def engine_of(node: Running) -> int:
    """The engine's process id."""
    (engine,) = psutil.Process(node.process.pid).children()
    return engine.pid


def wait_still(pid: int) -> None:
    """Wait until a process works no more: little CPU time in each of three half seconds."""
    process, quiet = psutil.Process(pid), 0
    deadline = time.monotonic() + 60
    while quiet < 3:
        assert time.monotonic() < deadline, f"process {pid} goes on working"
        before = sum(process.cpu_times()[:2])
        time.sleep(0.5)
        quiet = quiet + 1 if sum(process.cpu_times()[:2]) - before < 0.05 else 0


def kill_9(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def open_request(url: str, path: str, body: Any) -> Iterator[http.client.HTTPConnection]:
    """A request that has been sent; the caller takes its response, or leaves."""
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    headers = {"Content-Type": "application/json", "X-Kvloop-Node-Secret": SECRET}
    connection.request("POST", path, json.dumps(body), headers)
    try:
        yield connection
    finally:
        connection.close()

"""Seconds of computing, from nodes that are asked over HTTP."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.node_seconds import NodeSeconds, find_metrics
from kvloop.benchmark.results.document import SegmentResult

BEGUN = Segment(arm="on", step=1, round=2, conversations=(0,), salt="s")
ENDED = SegmentResult(arm="on", step=1, round=2, rate=None, began_at=0.0, ended_at=1.0)


@dataclass(slots=True)
class Nodes:
    """What each path answers; a path that is not there is a 404."""

    url: str = ""
    texts: dict[str, str] = field(default_factory=dict)

    def compute(self, name: str, seconds: float) -> None:
        self.texts[f"/{name}/metrics"] = (
            "# TYPE kvloop_step_seconds histogram\n"
            'kvloop_step_seconds_bucket{le="0.1"} 3.0\n'
            "kvloop_step_seconds_count 9.0\n"
            f"kvloop_step_seconds_sum {seconds}\n"
        )

    def metrics(self, *names: str) -> list[str]:
        return [f"{self.url}/{name}/metrics" for name in names]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    known = Nodes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = known.texts.get(self.path)
            self.send_response(404 if text is None else 200)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield known
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_segments_seconds_are_what_all_nodes_added_meanwhile(nodes: Nodes) -> None:
    nodes.compute("prefill", 10.0)
    nodes.compute("decode", 5.0)
    probe = NodeSeconds(nodes.metrics("prefill", "decode"))
    probe.began(BEGUN)
    nodes.compute("prefill", 12.0)
    nodes.compute("decode", 5.5)
    probe.ended(ENDED)
    (spent,) = probe.spent
    assert (spent.arm, spent.step, spent.round, spent.seconds) == ("on", 1, 2, 2.5)
    assert probe.problems == ()


def test_a_node_that_does_not_answer_is_named_once_and_nothing_is_counted(nodes: Nodes) -> None:
    nodes.compute("prefill", 10.0)
    probe = NodeSeconds(nodes.metrics("prefill", "gone"))
    for _ in range(2):
        probe.began(BEGUN)
        probe.ended(ENDED)
    assert probe.spent == ()
    (problem,) = probe.problems
    assert "gone/metrics" in problem and "404" in problem


def test_a_node_that_began_anew_is_not_counted(nodes: Nodes) -> None:
    nodes.compute("prefill", 10.0)
    probe = NodeSeconds(nodes.metrics("prefill"))
    probe.began(BEGUN)
    nodes.compute("prefill", 1.0)
    probe.ended(ENDED)
    assert probe.spent == () and "began anew" in probe.problems[0]


def test_metrics_of_something_else_are_named(nodes: Nodes) -> None:
    nodes.texts["/other/metrics"] = "go_goroutines 7\n"
    probe = NodeSeconds(nodes.metrics("other"))
    probe.began(BEGUN)
    assert "has no kvloop_step_seconds" in probe.problems[0]


def test_what_speaks_no_http_is_named_and_does_not_end_the_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def answer() -> None:
            for _ in range(2):
                peer, _ = listening.accept()
                with peer:
                    peer.recv(1000)
                    peer.sendall(b"SSH-2.0\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        probe = NodeSeconds([f"{url}/metrics"])
        probe.began(BEGUN)
        assert find_metrics(url) == ()
        thread.join(timeout=10)
    assert "cannot read" in probe.problems[0]


def test_without_nodes_nothing_is_asked_nor_complained_about() -> None:
    probe = NodeSeconds(())
    probe.began(BEGUN)
    probe.ended(ENDED)
    assert probe.spent == () and probe.problems == ()


def test_the_router_names_the_nodes_that_are_ready(nodes: Nodes) -> None:
    known = [
        {"url": "http://p:1", "role": "prefill", "state": "ready"},
        {"url": "http://d:2/", "role": "decode", "state": "ready"},
        {"url": "http://gone:3", "role": "decode", "state": "lost"},
    ]
    nodes.texts["/server_info"] = json.dumps({"role": "router", "nodes": known})
    assert find_metrics(nodes.url) == ("http://p:1/metrics", "http://d:2/metrics")


@pytest.mark.parametrize("text", [None, "no JSON", "[]", '{"nodes": 3}', '{"nodes": [3]}'])
def test_any_other_server_names_none(nodes: Nodes, text: str | None) -> None:
    if text is not None:
        nodes.texts["/server_info"] = text
    assert find_metrics(nodes.url) == ()

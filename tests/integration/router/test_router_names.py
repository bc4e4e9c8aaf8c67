"""One name, several routers: nodes tell each, as behind a headless Service; pods' addresses."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import FLAGS
from hicache_loop import ids_of, small_model
from loop_client import complete
from running import Cluster, Running, fetch, free_port, wait_for

pytestmark = pytest.mark.integration
STAND_IN = Path(__file__).parents[2] / "support" / "resolving_node.py"


def known(url: str) -> set[str]:
    """URLs of the nodes that this router may send requests to."""
    status, info = fetch(f"{url}/server_info")
    if status != 200:
        return set()
    return {node["url"] for node in info["nodes"] if node["state"] == "ready"}


def start_router(cluster: Cluster, address: str, port: int) -> Running:
    router = cluster.start(
        f"router-{address}",
        *("router", "--host", address, "--port", str(port)),
        *("--node-secret-file", str(cluster.secret)),
        port=port,
    )
    router.url = f"http://{address}:{port}"
    return router


def test_nodes_on_all_interfaces_tell_every_router_of_a_name_also_those_that_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, port = tmp_path / "hosts", free_port()
    hosts.write_text("routers.test 127.0.0.1 127.0.0.2\n")
    monkeypatch.setenv("TEST_HOSTS_FILE", str(hosts))
    with Cluster(tmp_path, small_model(tmp_path / "model")) as cluster:
        cluster.router_port = port
        urls = [f"http://127.0.0.{n}:{port}" for n in (1, 2, 3)]
        routers = [start_router(cluster, f"127.0.0.{n}", port) for n in (1, 2)]
        wanted = set()
        for n, role in enumerate(("prefill", "decode")):
            own = free_port()
            wanted.add(f"http://127.0.0.{n + 5}:{own}")
            cluster.node(
                role,
                *(*FLAGS, "--router", f"http://routers.test:{port}", "--host", "0.0.0.0"),
                *("--advertise-url", f"http://127.0.0.{n + 5}:{own}"),
                *("--transfer-host", f"127.0.0.{n + 5}"),
                port=own,
                program=(str(STAND_IN),),
            )
        for url in urls[:2]:
            wait_for(f"the nodes at {url}", lambda url=url: known(url) == wanted, 120)
        for router in routers:
            router.wait_ready()
            answer = complete(router.url, ids_of(40, 1), 8)
            assert answer.sources["prefill_node"] in wanted, "by its advertised address"
        routers[1].stop()
        routers.append(start_router(cluster, "127.0.0.3", port))
        hosts.write_text("routers.test 127.0.0.1 127.0.0.3\n")
        wait_for("the nodes at the new router", lambda: known(urls[2]) == wanted, 60)
        assert known(urls[0]) == wanted

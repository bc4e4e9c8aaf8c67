"""Which master is asked, of several, and where the leader is registered."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kvloop.shared_cache.backends.mooncake.masters import choose_master, parse_masters
from kvloop.shared_cache.storage_errors import StorageUnavailable


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def nobody() -> str:
    with closing(listener()) as gone:
        return f"127.0.0.1:{gone.getsockname()[1]}"


@contextmanager
def etcd_with(leader: str | None) -> Iterator[str]:
    """etcd's JSON gateway, with this leader; it knows the cluster `mooncake_cluster` only."""

    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = base64.b64decode(asked["key"]).decode()
            found = key == "mooncake-store/mooncake_cluster/master_view" and leader is not None
            value = base64.b64encode((leader or "").encode()).decode()
            body = json.dumps({"kvs": [{"value": value}]} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_first_master_that_listens_is_taken() -> None:
    with closing(listener()) as one:
        here = f"127.0.0.1:{one.getsockname()[1]}"
        assert choose_master(parse_masters(f"{nobody()},{here}")) == (here, 1)


def test_where_no_master_listens_all_are_named() -> None:
    first, second = nobody(), nobody()
    with pytest.raises(StorageUnavailable, match=f"no master at {first}: .*no master at {second}"):
        choose_master(parse_masters(f"{first},{second}"))


def test_the_leader_is_the_one_that_etcd_names() -> None:
    with closing(listener()) as one:
        leader = f"127.0.0.1:{one.getsockname()[1]}"
        with etcd_with(leader) as etcd:
            assert choose_master(parse_masters(f"etcd://{nobody()};{etcd}")) == (leader, 0)
            with pytest.raises(StorageUnavailable, match="cluster_id 'east'"):
                choose_master(parse_masters(f"etcd://{etcd}"), "east")


def test_a_leader_that_is_registered_but_gone_is_not_connected_to() -> None:
    gone = nobody()
    with (
        etcd_with(gone) as etcd,
        pytest.raises(StorageUnavailable, match=f"no master at {gone}"),
    ):
        choose_master(parse_masters(f"etcd://{etcd}"))


def test_what_is_no_leaders_address_is_no_crash() -> None:
    with etcd_with("nonsense") as etcd, pytest.raises(StorageUnavailable, match="no etcd answers"):
        choose_master(parse_masters(f"etcd://{etcd}"))


def test_other_registries_are_left_to_the_library() -> None:
    assert choose_master(parse_masters("redis://a:1")) == ("redis://a:1", 0)

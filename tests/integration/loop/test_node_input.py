"""What nodes say to wrong flags, wrong callers, wrong bodies and wrong partners."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from faults import FLAGS, Loop, open_request, prompt_of, start_loop
from loop_client import complete
from running import SECRET, Cluster, Running, fetch, free_port, wait_for

pytestmark = pytest.mark.integration
KEY = "a-key-that-no-page-may-show"
NODE = {"X-Kvloop-Node-Secret": SECRET}


@pytest.fixture(scope="module")
def loop(tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """Two nodes of different releases, an admin key on decode only, and a master that is dead."""
    with Cluster(tmp_path_factory.mktemp("input"), tiny_models["llama"]) as cluster:
        dead = {"master_server_address": f"127.0.0.1:{free_port()}"}
        cluster.storage = ["--hicache-storage-backend", "mooncake"]
        cluster.storage += ["--hicache-storage-backend-extra-config", json.dumps(dead)]
        prefill = ("--release-tag", "old", "--admin-api-key", "")
        decode = ("--release-tag", "new", "--admin-api-key", KEY)
        yield start_loop(cluster, prefills=(prefill,), decodes=(decode,))


def ended(node: Running) -> tuple[int, str]:
    """Exit status and output of a node that cannot start; its engine must not outlive it."""
    children: set[psutil.Process] = set()

    def is_over() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            children.update(psutil.Process(node.process.pid).children())
        return node.process.poll() is not None

    wait_for("its end", is_over, 60)
    wait_for("its engine's end", lambda: not any(map(is_running, children)), 5)
    return node.process.returncode, node.log.read_text()


def is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--page-size", "24"), "--page-size must be a power of two, got 24"),
        (("--page-size", "x"), "--page-size: must be a whole number of 1 or above, got 'x'"),
        (("--max-total-tokens", "16"), "--max-total-tokens must hold two pages of 16"),
        (("--model", "/no/such/model"), "model '/no/such/model' does not exist"),
        (("--context-length", "99999"), "--context-length 99999 is over the model's 8192"),
        (("--node-secret-file", "/no/secret"), "--node-secret-file /no/secret: No such file"),
        (("--hicache-storage-backend", "mooncake"), "lacks the field 'master_server_address'"),
        (("--transfer-host", "192.0.2.7"), "--transfer-host 192.0.2.7 with"),
    ],
)
def test_a_node_that_cannot_start_says_why_in_words(
    flags: tuple[str, ...], words: str, tiny_models: dict[str, str], tmp_path: Path
) -> None:
    with Cluster(tmp_path, tiny_models["llama"]) as cluster:
        status, output = ended(cluster.node("decode", *FLAGS, *flags))
    assert status == 2, output
    assert words in output
    assert "Traceback" not in output


def test_a_port_in_use_is_named_before_anything_is_loaded(
    tiny_models: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, Cluster(tmp_path, "smollm2") as cluster:
        port = taken.getsockname()[1]
        status, output = ended(cluster.node("prefill", *FLAGS, port=port))
    assert status == 2
    words = f"--port {port}: cannot listen on 127.0.0.1: Address already in use"
    assert output.strip() == f"kvloop prefill: error: {words}"


def test_nodes_are_ready_without_the_master_and_show_it(loop: Loop) -> None:
    for node in loop.nodes:
        assert fetch(f"{node.url}/readyz")[0] == 200
        wait_for(
            "the state",
            lambda node=node: node.metric("kvloop_storage_state", backend="mooncake", state="open"),
        )
    answer = complete(loop.url, prompt_of(40), 20)
    assert answer.ids == complete(loop.url, prompt_of(40), 20, cache="off").ids


@pytest.mark.parametrize("secret", [None, "wrong", ""])
def test_endpoints_between_nodes_want_the_secret(loop: Loop, secret: str | None) -> None:
    headers = {} if secret is None else {"X-Kvloop-Node-Secret": secret}
    prefill, decode = loop.prefills[0].url, loop.decodes[0].url
    urls = [f"{prefill}/kvloop/{name}" for name in ("prefill", "cancel")]
    for url in (*urls, f"{decode}/kvloop/generate"):
        status, body = fetch(url, {}, headers)
        assert (status, body["error"]["code"]) == (401, 401)


@pytest.mark.parametrize("path", ["/flush_cache", "/hicache/storage-backend"])
def test_admin_calls_want_the_key_and_are_refused_where_none_is_configured(
    loop: Loop, path: str
) -> None:
    body = {} if path == "/flush_cache" else None
    decode, prefill = f"{loop.decodes[0].url}{path}", f"{loop.prefills[0].url}{path}"
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY + "x"}):
        assert fetch(decode, body, given)[0] == 401
    assert fetch(decode, body, {"Authorization": f"Bearer {KEY}"})[0] == 200
    for given in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {KEY}"}):
        status, answer = fetch(prefill, body, given)
        assert status == 403
        assert "--admin-api-key" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "missing required field `request_id`"),
        ([], "Expected `object`"),
        ({"request_id": 7}, "Expected `str`, got `int` - at `$.request_id`"),
        ({"request_id": "r", "prompt": "text"}, "Expected `array`, got `str` - at `$.prompt`"),
    ],
)
def test_a_malformed_body_is_refused_naming_the_field(loop: Loop, body: Any, words: str) -> None:
    paths = {"generate": loop.decodes[0], "prefill": loop.prefills[0]}
    for path, node in paths.items():
        status, answer = fetch(f"{node.url}/kvloop/{path}", body, NODE)
        assert status == 400
        assert words in answer["error"]["message"]
        assert fetch(f"{node.url}/readyz")[0] == 200


def test_decode_never_pairs_with_a_prefill_of_another_release(loop: Loop) -> None:
    (decode,), (prefill,) = loop.decodes, loop.prefills
    record = decode.info()["node"]
    assert record["namespace"] != prefill.info()["node"]["namespace"]
    # By the router: it names no prefill node at all.
    answer = complete(loop.url, prompt_of(100), 8, cache="off")
    assert (answer.sources["fallback"], answer.sources["prefill_node"]) == ("local_prefill", None)
    assert decode.metric("kvloop_fallbacks_total", kind="prefill_refused") == 0
    # Told to all the same, it is refused there, and says so.
    asked = {
        "request_id": "forced",
        "prompt": prompt_of(100),
        "sampling": {"max_tokens": 8, "temperature": 0, "ignore_eos": True},
        "namespace": record["namespace"],
        "cache": "off",
        "prefills": [{"url": prefill.url}],
    }
    with open_request(decode.url, "/kvloop/generate", asked) as request:
        events = [json.loads(line) for line in request.getresponse().read().splitlines()]
    assert events[0]["fallback"] == "local_prefill"
    assert [token for event in events[1:-1] for token in event["ids"]] == answer.ids
    assert decode.metric("kvloop_fallbacks_total", kind="prefill_refused") == 1
    loop.wait_idle()


def test_a_request_for_another_namespace_is_refused(loop: Loop) -> None:
    asked = {
        "request_id": "lost",
        "prompt": [1],
        "sampling": {"max_tokens": 1},
        "namespace": loop.prefills[0].info()["node"]["namespace"],
    }
    with open_request(loop.decodes[0].url, "/kvloop/generate", asked) as request:
        (event,) = [json.loads(line) for line in request.getresponse().read().splitlines()]
    assert (event["type"], event["status"], event["kind"]) == ("refused", 409, "namespace")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/server_info"])
def test_open_endpoints_need_no_key_and_show_no_secret(loop: Loop, path: str) -> None:
    for node in loop.nodes:
        status, body = fetch(f"{node.url}{path}")
        assert status == 200
        assert SECRET not in str(body) and KEY not in str(body)

"""The admin API of the shared cache on real nodes: who may, what is refused, what is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from admin import PATH, ask, attach, detach, storage
from faults import FLAGS, Loop, prompt_of, start_loop
from loop_client import complete
from running import Cluster, Running, drained, fetch, wait_for

pytestmark = pytest.mark.integration
SECRET = "hunter2-and-more"
MODULE = "kvloop_test_store"
EXTRA = "hicache_storage_backend_extra_config_json"
CALLS = [("GET", PATH), ("PUT", PATH), ("DELETE", PATH), ("POST", f"{PATH}/clear")]
SOURCE = """
from pathlib import Path
from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig

Path(__file__).with_suffix(".imported").touch()

class Store(FileBackend):
    def __init__(self, config, pool, namespace):
        if "fail" in config:
            raise ConnectionError(f"no login at http://me:{config['password']}@store/ {config}")
        super().__init__(FileConfig(root=config["root"]), pool, namespace)

    def exists(self, keys):
        check()
        return super().exists(keys)

    def get_small(self, name):
        check()
        return super().get_small(name)

def check():
    if Path(__file__).with_suffix(".broken").exists():
        raise RuntimeError("the token hunter2-and-more has expired")
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that nodes find modules in."""
    folder = tmp_path_factory.mktemp("modules")
    for name in (MODULE, f"{MODULE}_other"):
        (folder / f"{name}.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield folder


@pytest.fixture(scope="module")
def loop(
    tiny_models: dict[str, str], modules: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loop]:
    with Cluster(tmp_path_factory.mktemp("admin"), tiny_models["llama"]) as cluster:
        allowed = ("--hicache-dynamic-modules", MODULE)
        yield start_loop(cluster, prefills=(allowed,), decodes=(allowed,))


@pytest.fixture(autouse=True)
def detached(loop: Loop) -> Iterator[None]:
    yield
    for node in loop.nodes:
        assert detach(node)["state"] == "detached"


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_wants_the_admin_key(loop: Loop, method: str, path: str) -> None:
    for node in loop.nodes:
        before = storage(node)
        for key in (None, "wrong", ""):
            status, body = ask(node, method, path, {"nonsense": True}, key)
            assert (status, body["error"]["code"]) == (401, 401)
        assert storage(node) == before


def test_every_call_is_refused_where_no_key_is_configured(
    tiny_models: dict[str, str], tmp_path: Path
) -> None:
    with Cluster(tmp_path, tiny_models["llama"]) as cluster:
        node = cluster.node("decode", *FLAGS, "--admin-api-key", "").wait_ready()
        for method, path in CALLS:
            for key in ("", "admin"):
                status, body = ask(node, method, path, {}, key)
                assert status == 403 and "--admin-api-key" in body["error"]["message"]


def test_nothing_attached_is_a_state_like_others(loop: Loop) -> None:
    for node in loop.nodes:
        now = storage(node)
        assert (now["backend"], now["state"]) == ("none", "detached")
        status, body = ask(node, "POST", f"{PATH}/clear")
        assert status == 409 and "its state is detached" in body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"hicache_storage_backend": "tape"}, "hicache_storage_backend must be one of"),
        ({"hicache_storage_backend": "file", EXTRA: {}}, f"{EXTRA}: storage backend 'file': extra"),
        ({"hicache_storage_backend": "file", EXTRA: {"rot": 1}}, "unknown field 'rot'"),
        (
            {"hicache_storage_backend": "file", EXTRA: '{"root": "/x", "prefetch_threshold": -1}'},
            "prefetch_threshold must be a whole number of 0 or above",
        ),
        ({"page_size": 16}, "unknown field 'page_size'"),
    ],
)
def test_a_wrong_change_is_refused_naming_the_field(loop: Loop, body: Any, words: str) -> None:
    for node in loop.nodes:
        status, answer = ask(node, "PUT", body=body)
        assert status == 400 and words in answer["error"]["message"]
        assert storage(node)["state"] == "detached"


def test_policies_are_set_and_shown_on_prefill_and_refused_on_decode(loop: Loop) -> None:
    (prefill,), (decode,) = loop.prefills, loop.decodes
    before = storage(prefill)["policies"]
    wanted = {
        "hicache_storage_prefetch_policy": "wait_complete",
        "hicache_write_policy": "write_through_selective",
    }
    assert before != wanted
    for policies in (wanted, before):
        status, answer = ask(prefill, "PUT", body=policies)
        assert status == 200 and answer["policies"] == policies == storage(prefill)["policies"]
    for name, value in wanted.items():
        status, answer = ask(decode, "PUT", body={name: value})
        assert status == 400 and f"{name} is a prefill node's" in answer["error"]["message"]
    assert storage(decode)["policies"] == {}


def test_a_backend_that_cannot_open_is_shown_and_taken_when_it_can(
    loop: Loop, tmp_path: Path
) -> None:
    (tmp_path / "root").write_text("a file in the way")
    node = loop.decodes[0]
    now = attach(node, "file", root=str(tmp_path / "root"))
    assert now["state"] == "open" and "storage backend 'file'" in now["last_error"]
    (tmp_path / "root").unlink()
    wait_for("the backend", lambda: storage(node)["state"] == "attached")


def test_clear_empties_this_namespace_and_no_other(loop: Loop, tmp_path: Path) -> None:
    for node in loop.nodes:
        attach(node, "file", root=str(tmp_path))
    home = tmp_path / "kvl1" / storage(loop.decodes[0])["namespace"]
    other = tmp_path / "kvl1" / ("0" * 64) / "00" / "00" / "kvl1-page"
    other.parent.mkdir(parents=True)
    other.write_text("another's")
    prompt = prompt_of(150, 3)
    complete(loop.url, prompt, 40)
    wait_for("the drain", lambda: drained(*loop.nodes))
    assert list(home.rglob("kvl1-*"))
    status, body = ask(loop.decodes[0], "POST", f"{PATH}/clear")
    assert (status, body["cleared"]) == (200, True)
    assert not list(home.rglob("kvl1-*")) and other.read_text() == "another's"
    again = complete(loop.url, prompt, 40, cache="l3_only")
    assert again.sources["storage"] == 0


def dynamic(**fields: Any) -> dict[str, Any]:
    known = {"backend_name": "mine", "module_path": MODULE, "class_name": "Store"}
    config = {**known, "password": SECRET, **fields}
    return {"hicache_storage_backend": "dynamic", EXTRA: config}


def test_dynamic_loads_from_allowed_modules_only(loop: Loop, modules: Path, tmp_path: Path) -> None:
    for node in loop.nodes:
        body = dynamic(module_path=f"{MODULE}_other", root=str(tmp_path))
        status, answer = ask(node, "PUT", body=body)
        assert status == 400
        assert "--hicache-dynamic-modules" in answer["error"]["message"]
        assert not (modules / f"{MODULE}_other.imported").exists()
        status, answer = ask(node, "PUT", body=dynamic(root=str(tmp_path)))
        assert (status, answer["backend"], answer["state"]) == (200, "dynamic", "attached")
        assert (modules / f"{MODULE}.imported").exists()
    prompt = prompt_of(120, 4)
    complete(loop.url, prompt, 20)
    wait_for("the drain", lambda: drained(*loop.nodes))
    assert complete(loop.url, prompt, 20, cache="l3_only").sources["storage"] > 0


def everything_said(node: Running) -> str:
    pages = [fetch(f"{node.url}{path}") for path in ("/healthz", "/readyz", "/metrics")]
    pages += [
        fetch(f"{node.url}/server_info"),
        ask(node, "GET"),
        ask(node, "POST", f"{PATH}/clear"),
    ]
    return json.dumps(pages) + node.log.read_text()


def test_no_secret_of_a_backend_is_ever_shown(loop: Loop, modules: Path, tmp_path: Path) -> None:
    for node in loop.nodes:
        status, answer = ask(node, "PUT", body=dynamic(fail=True))
        assert (status, answer["state"]) == (200, "open")
        assert "no login at http://***@store/" in answer["last_error"]
        said = [json.dumps(answer), everything_said(node)]
        refused = ask(node, "PUT", body=dynamic(class_name="Gone"))
        said.append(json.dumps(refused))
        ask(node, "PUT", body=dynamic(root=str(tmp_path)))
        (modules / f"{MODULE}.broken").touch()
        try:
            complete(loop.url, prompt_of(90, 5), 20)
            wait_for("the breaker", lambda node=node: storage(node)["state"] == "open", 60)
            assert "the token *** has expired" in storage(node)["last_error"]
            said.append(everything_said(node))
        finally:
            (modules / f"{MODULE}.broken").unlink()
        assert not any(SECRET in text for text in said)


def test_a_node_told_to_load_a_module_that_is_not_allowed_does_not_start(
    tiny_models: dict[str, str], modules: Path, tmp_path: Path
) -> None:
    config = dynamic(module_path=f"{MODULE}_other")[EXTRA]
    with Cluster(tmp_path, tiny_models["llama"]) as cluster:
        cluster.storage = ["--hicache-storage-backend", "dynamic"]
        cluster.storage += ["--hicache-storage-backend-extra-config", json.dumps(config)]
        node = cluster.node("decode", *FLAGS)
        assert node.process.wait(60) == 2
    output = node.log.read_text()
    assert "--hicache-dynamic-modules" in output and SECRET not in output
    assert not (modules / f"{MODULE}_other.imported").exists()

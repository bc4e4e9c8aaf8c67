"""`kvloop cache` on real stores."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import secrets
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filled_store import SHAPE, fill
from mooncake_store import MooncakeStore
from page_files import published
from running import wait_for

pytestmark = pytest.mark.integration

Store = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def mooncake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MooncakeStore]:
    store = MooncakeStore(tmp_path_factory.mktemp("mooncake") / "store.log")
    yield store
    store.stop()


_BY_ROOT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "file": ("file", "root", {}),
    "hf3fs": ("hf3fs", "mount", {"io": "posix", "require_mount": False}),
    "nixl": ("nixl", "root", {"plugin": "POSIX"}),
    "aibrix-shfs": ("aibrix", "root", {"l2_cache_backend": "SHFS"}),
    "aibrix-rocksdb": ("aibrix", "root", {"l2_cache_backend": "ROCKSDB"}),
}
_LIBRARIES = {"nixl": "nixl_cu12", "aibrix": "aibrix_kvcache"}


# Processes that import AIBrix are slow to start: the suite lists its stores in one process.
_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in _BY_ROOT if "aibrix" in name]


@pytest.fixture(params=["file", "hf3fs", "nixl", "mooncake", *_SLOW])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "mooncake":
        return "mooncake", request.getfixturevalue("mooncake").config
    backend, field, fields = _BY_ROOT[request.param]
    if library := _LIBRARIES.get(backend):
        pytest.importorskip(library, reason=f"see docs/backends/{backend}.md")
    root = tmp_path / "l3"
    root.mkdir()
    return backend, {field: str(root), **fields}


@pytest.fixture
def namespace() -> bytes:
    return secrets.token_bytes(32)


def started(tool: str, *flags: str, **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "kvloop.cli", "cache", tool, *flags]
    return subprocess.Popen(command, preexec_fn=_heeds_ctrl_c, **(pipes | options))


def _heeds_ctrl_c() -> None:
    """Of what runs in a shell's background SIGINT is ignored, and so by its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(tool: str, *flags: str) -> tuple[int, str, str]:
    with started(tool, *flags) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def written(store: Store) -> str:
    """As STORE."""
    return f"{store[0]}:{json.dumps(store[1])}"


def report(tool: str, *flags: str) -> dict[str, Any]:
    """The tool's only namespace, as JSON."""
    _, out, err = run(tool, *flags, "--json")
    assert out, err
    [found] = json.loads(out)["namespaces"]
    return dict(found)


def test_what_a_store_holds_is_counted_and_checks(store: Store, namespace: bytes) -> None:
    fill(*store, namespace, 70)
    _, out, _ = run("stat", written(store), "--namespace", namespace.hex(), "--json")
    [found] = json.loads(out)["stores"][0]["namespaces"]
    assert (found["pages"], found["incomplete_pages"]) == (70, 0)
    assert found["manifest"]["model"] == "tiny"
    assert found["bytes"] >= 70 * SHAPE.slot_bytes
    verified = report("verify", written(store), "--namespace", namespace.hex())
    assert verified["good_by_writer"] == {"decode": 24, "prefill": 46}
    assert not verified["faults"] and verified["gone"] == 0


def test_all_pages_of_a_namespace_are_listed_and_removed(store: Store, namespace: bytes) -> None:
    keys = fill(*store, namespace, 5)
    flags = written(store), "--namespace", namespace.hex()
    status, out, _ = run("ls", *flags, "-q")
    assert status == 0 and sorted(out.split()) == sorted(key.hex() for key in keys)
    status, out, err = run("evict", *flags, "--all")
    assert status == 0 and "removed 5 of 5 pages" in out, err
    status, _, err = run("ls", *flags)
    assert status == 2 and "no namespace" in err


def files_of(root: Path) -> dict[tuple[bytes, int], bytes]:
    return {(page.key, page.group): page.path.read_bytes() for page in published(root)}


def test_pages_go_from_store_to_store_and_stay_the_same(
    mooncake: MooncakeStore, namespace: bytes, tmp_path: Path
) -> None:
    source, back = tmp_path / "a", tmp_path / "b"
    fill("file", {"root": str(source)}, namespace, 70)
    middle = written(("mooncake", mooncake.config))
    there = report("copy", f"file:{source}", middle)
    assert (there["copied"], there["manifest"]) == (70, True)
    again = report("copy", f"file:{source}", middle)
    assert (again["copied"], again["already_there"]) == (0, 70)
    here = report("copy", middle, f"file:{back}", "--namespace", namespace.hex())
    assert here["copied"] == 70
    assert files_of(source) == files_of(back) and len(files_of(back)) == 140
    assert run("verify", f"file:{back}")[0] == 0


@pytest.mark.parametrize("kind", ["chain", "zones"])
def test_pages_are_warmed_into_the_near_store(
    mooncake: MooncakeStore, namespace: bytes, tmp_path: Path, kind: str
) -> None:
    near = {"backend": "file", "config": {"root": str(tmp_path / "near")}}
    far = {"backend": "mooncake", "config": mooncake.config}
    fields: dict[str, Any] = {"near": near, "far": far}
    if kind == "zones":
        fields = {"zone": "edge-a", "local": near, "central": far}
    fill("mooncake", mooncake.config, namespace, 40)
    warmed = report("warm", written((kind, fields)), "--namespace", namespace.hex())
    assert (warmed["copied"], warmed["manifest"]) == (40, True)
    assert len(files_of(tmp_path / "near")) == 80
    # Through the two of them, into a third.
    copied = report(
        "copy", written((kind, fields)), f"file:{tmp_path / 'c'}", "--namespace", namespace.hex()
    )
    assert copied["copied"] == 40 and files_of(tmp_path / "c") == files_of(tmp_path / "near")


def test_pages_are_copied_into_a_chain(
    mooncake: MooncakeStore, namespace: bytes, tmp_path: Path
) -> None:
    near = {"backend": "file", "config": {"root": str(tmp_path / "near")}}
    chain = "chain", {"near": near, "far": {"backend": "mooncake", "config": mooncake.config}}
    fill("file", {"root": str(tmp_path / "a")}, namespace, 40)
    assert report("copy", f"file:{tmp_path / 'a'}", written(chain))["copied"] == 40
    far = written(("mooncake", mooncake.config))
    assert report("verify", far, "--namespace", namespace.hex())["good_by_writer"] == {
        "decode": 14,
        "prefill": 26,
    }


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[10] ^= 4
    path.write_bytes(data)


def shortened(path: Path) -> None:
    os.truncate(path, 4096 - 1)


@pytest.mark.parametrize(("damage", "fault"), [(flipped, "payload"), (shortened, "length")])
def test_a_damaged_file_is_found_left_out_and_removed(
    namespace: bytes, tmp_path: Path, damage: Callable[[Path], None], fault: str
) -> None:
    root, target = tmp_path / "a", tmp_path / "b"
    keys = fill("file", {"root": str(root)}, namespace, 10)
    bad = next(page for page in published(root) if page.group == 1)
    damage(bad.path)
    status, out, _ = run("copy", f"file:{root}", f"file:{target}")
    assert {page.key for page in published(target)} == set(keys) - {bad.key}
    status, out, _ = run("verify", f"file:{root}")
    assert status == 1 and f"damaged    1 page: {fault} 1" in out and bad.key.hex() in out
    run("verify", f"file:{root}", "--delete")
    assert {page.key for page in published(root)} == set(keys) - {bad.key}
    assert run("verify", f"file:{root}")[0] == 0


def test_the_least_recently_used_files_go_first(namespace: bytes, tmp_path: Path) -> None:
    keys = fill("file", {"root": str(tmp_path)}, namespace, 6)
    old = [page for page in published(tmp_path) if page.key in keys[2:4]]
    for page in old:
        os.utime(page.path, (1e9, 1e9))
    left = f"{4 * SHAPE.slot_bytes}B"
    status, out, err = run("evict", f"file:{tmp_path}", "--to", left)
    assert status == 0 and "removed 2 of 2 pages" in out, err
    assert {page.key for page in published(tmp_path)} == set(keys) - set(keys[2:4])


def test_a_copy_that_was_interrupted_goes_on(namespace: bytes, tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    fill("file", {"root": str(source)}, namespace, 3000)
    with started("copy", f"file:{source}", f"file:{target}", "--json") as process:
        wait_for("the first batches", lambda: sum(1 for _ in published(target)) > 400)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    [first] = json.loads(out)["namespaces"]
    assert process.returncode == 130 and 0 < first["copied"] < 3000
    assert run("verify", f"file:{target}")[0] == 0
    second = report("copy", f"file:{source}", f"file:{target}")
    assert second["already_there"] >= first["copied"]
    assert second["already_there"] + second["copied"] == 3000
    assert files_of(source) == files_of(target)


_HANGS = """
import threading
from shelf_store import ShelfBackend

class Hangs(ShelfBackend):
    def __init__(self, fields, pool, namespace):
        super().__init__(fields, pool, namespace)
        self.shelf.stalls[fields["call"]] = threading.Event()
"""


@pytest.mark.parametrize(("tool", "call"), [("stat", "objects"), ("copy", "exists")])
def test_a_store_that_hangs_is_an_error_and_the_process_ends(
    tmp_path: Path, namespace: bytes, tool: str, call: str
) -> None:
    (tmp_path / "hangs.py").write_text(_HANGS)
    fill("file", {"root": str(tmp_path / "a")}, namespace, 2)
    config = {"backend_name": "h", "module_path": "hangs", "class_name": "Hangs", "store": "s"}
    stores = [written(("dynamic", config | {"call": call}))]
    if tool == "copy":
        stores.insert(0, f"file:{tmp_path / 'a'}")
    flags = *stores, "--timeout-s", "1", "--dynamic-modules", "hangs"
    support = Path(__file__).parents[2] / "support"
    path = os.pathsep.join([str(tmp_path), str(support)])
    with started(tool, *flags, env=os.environ | {"PYTHONPATH": path}) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and "dynamic did not answer within 1 s" in err


def test_a_master_that_hangs_is_an_error_by_the_deadline(tmp_path: Path) -> None:
    hung = MooncakeStore(tmp_path / "store.log")
    master = hung.master_pid()
    assert master is not None
    os.kill(master, signal.SIGSTOP)
    try:
        status, _, err = run("stat", written(("mooncake", hung.config)), "--timeout-s", "1")
    finally:
        os.kill(master, signal.SIGCONT)
        hung.stop()
    assert status == 1 and "did not answer within 1 s" in err


def on_a_terminal(*command: str, columns: int) -> str:
    """What a command shows, and that it ends with status 0."""
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with started(*command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO is a terminal's end
            while some := os.read(mine, 4096):
                shown += some
    os.close(mine)
    assert process.returncode == 0, shown
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_a_terminal_shows_how_far_a_copy_is_in_its_width(namespace: bytes, tmp_path: Path) -> None:
    fill("file", {"root": str(tmp_path / "a")}, namespace, 200)
    stores = f"file:{tmp_path / 'a'}", f"file:{tmp_path / 'b'}"
    shown = on_a_terminal("copy", *stores, columns=80)
    bars = [line for line in re.split(r"[\r\n]+", shown) if line.startswith("copying")]
    assert re.search(r"200/200 1\.6 MiB [0-9.]+ .iB/s 00:00", bars[-1])
    assert all(len(bar) <= 80 for bar in bars)
    assert f"{namespace.hex()[:12]}  200 of 200 pages copied" in shown


def test_a_master_that_is_gone_is_named() -> None:
    status, _, err = run("stat", "mooncake:127.0.0.1:1", "--timeout-s", "10")
    assert status == 1 and "127.0.0.1:1" in err


def test_a_pipe_that_is_closed_early_is_no_error(namespace: bytes, tmp_path: Path) -> None:
    fill("file", {"root": str(tmp_path)}, namespace, 1500)
    with started("ls", f"file:{tmp_path}", "-q", "--limit", "0") as process:
        assert process.stdout is not None and process.stderr is not None
        assert len(process.stdout.readline()) == 65
        process.stdout.close()
        assert process.wait(30) == 0 and "Traceback" not in process.stderr.read()

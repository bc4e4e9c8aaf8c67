"""`kvloop canary` against a router that answers as a test tells it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from kvloop.cli.main import build_parser, main
from kvloop.cli.node_command import ADMIN_KEY_VARIABLE
from kvloop.router.canary.report import PairReport, Report, Result, StageReport, State

Run = Callable[..., tuple[int, str, str]]


def stage(name: Any, state: State, reason: str = "") -> StageReport:
    pages = {"pages": 8, "by_decode": 5}
    found = pages if state == "ok" else {"pages": 3, "by_decode": 0}
    return StageReport(
        stage=name, state=state, seconds=1.25, expected=pages, found=found, reason=reason
    )


def report(result: Result, *stages: StageReport, pairs: int = 1, note: str = "") -> Report:
    one = [
        PairReport(
            decode=f"http://decode{i}:1",
            prefill=f"http://prefill{i}:1",
            reader=f"http://reader{i}:1",
            stages=stages,
            note=note or None,
        )
        for i in range(pairs)
    ]
    broken = next((s.stage for s in stages if s.state == "failed"), None)
    return Report(
        result=result,
        broken_stage=broken,
        stages=stages,
        pairs=tuple(one),
        notes=("an idle node",) if note else (),
        trigger="demand",
        started_at=1.0,
        seconds=4.5,
    )


WHOLE = report("whole", *(stage(s, "ok") for s in ("transfer", "write_back", "reuse")))
BROKEN = report(
    "broken",
    stage("transfer", "ok"),
    stage("write_back", "failed", "L3 is detached on decode http://decode0:1"),
    stage("reuse", "skipped", "write_back failed"),
)


class Router:
    """An HTTP server; `status` and `body` are its next answer."""

    def __init__(self) -> None:
        self.status, self.body, self.delay_s = 200, b"", 0.0
        self.asked: list[tuple[str, str, str | None]] = []
        router = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                router.asked.append((self.command, self.path, self.headers["Authorization"]))
                time.sleep(router.delay_s)
                self.send_response(router.status)
                self.end_headers()
                self.wfile.write(router.body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answers(self, body: Report | dict[str, Any], status: int = 200) -> None:
        self.body, self.status = msgspec.json.encode(body), status

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def router() -> Iterator[Router]:
    router = Router()
    yield router
    router.close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv(ADMIN_KEY_VARIABLE, raising=False)
    monkeypatch.setenv("COLUMNS", "160")  # names of pairs on one line

    def canary(*argv: str) -> tuple[int, str, str]:
        status = main(["canary", *argv])
        out = capsys.readouterr()
        return status, out.out, out.err

    return canary


def test_a_whole_loop_is_exit_status_0_and_shows_every_stage(router: Router, run: Run) -> None:
    router.answers(WHOLE)
    status, out, err = run(router.url, "--admin-api-key", "k")
    assert (status, err) == (0, "")
    assert "the loop is whole (4.5 s)" in out
    for name in ("transfer", "write_back", "reuse"):
        (line,) = [line for line in out.splitlines() if name in line]
        assert "ok" in line and "1.25 s" in line and "pages 8/8, by_decode 5/5" in line
    assert router.asked == [("POST", "/canary", "Bearer k")]


def test_a_broken_loop_is_exit_status_1_and_names_the_stage_on_stderr(
    router: Router, run: Run
) -> None:
    router.answers(BROKEN)
    status, out, err = run(router.url)
    assert status == 1
    assert err == (
        "the loop is broken at stage write_back: L3 is detached on decode http://decode0:1\n"
    )
    assert "pages 3/8" in out and "skipped" in out and "L3 is detached" in out
    assert router.asked == [("POST", "/canary", None)]


def test_a_loop_that_could_not_be_observed_is_no_success(router: Router, run: Run) -> None:
    router.answers(report("unknown", stage("transfer", "unknown", "the queue is full")))
    status, _, err = run(router.url)
    assert status == 1
    assert err == "the loop could not be observed at stage transfer: the queue is full\n"


def test_json_is_the_routers_report_and_the_exit_status_is_the_same(
    router: Router, run: Run
) -> None:
    router.answers(BROKEN)
    status, out, err = run(router.url, "--json")
    assert status == 1 and "write_back" in err
    assert msgspec.json.decode(out, type=Report) == BROKEN
    assert len(out.splitlines()) == 1


def test_several_pairs_are_shown_each_and_notes_once(router: Router, run: Run) -> None:
    stages = (stage("transfer", "ok"), stage("write_back", "ok"), stage("reuse", "ok"))
    router.answers(report("whole", *stages, pairs=2, note="the context is short"))
    _, out, _ = run(router.url)
    for name in ("prefill0:1 decode0:1 reader0:1", "prefill1:1 decode1:1 reader1:1", "all pairs"):
        assert out.count(name) == 1
    assert out.count("note: the context is short") == 1 and "note: an idle node" in out


def test_the_key_comes_from_the_environment_where_no_flag_gives_it(
    router: Router, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.answers(WHOLE)
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, "from-env")
    run(router.url)
    run(router.url, "--admin-api-key", "from-flag")
    assert [key for _, _, key in router.asked] == ["Bearer from-env", "Bearer from-flag"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "HTTP 401: missing or wrong admin API key; give it with --admin-api-key"),
        (403, "HTTP 403: missing or wrong admin API key"),
        (404, "HTTP 404"),
    ],
)
def test_a_router_that_refuses_is_exit_status_2(
    router: Router, run: Run, status: int, words: str
) -> None:
    router.answers({"error": {"message": "missing or wrong admin API key"}}, status)
    exit_status, out, err = run(router.url)
    assert (exit_status, out) == (2, "") and words in err


@pytest.mark.parametrize("body", [b"<html>", b"{}", json.dumps({"result": "fine"}).encode()])
def test_a_server_that_is_no_router_is_exit_status_2(router: Router, run: Run, body: bytes) -> None:
    router.body = body
    status, _, err = run(router.url)
    assert status == 2 and "is no kvloop router" in err


def test_a_router_that_is_not_there_or_too_slow_is_exit_status_2(router: Router, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    status, _, err = run(f"http://127.0.0.1:{port}")
    assert status == 2 and f"cannot reach http://127.0.0.1:{port}" in err
    router.answers(WHOLE)
    router.delay_s = 1.0
    status, _, err = run(router.url, "--timeout-s", "0.2")
    assert status == 2 and "gave no answer in 0.2 s (--timeout-s)" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["canary", "localhost"], "must be a URL"),
        (["canary", "http://a:1", "--timeout-s", "0"], "--timeout-s: must be a number above 0"),
        (["router", "--canary-interval-s", "-1"], "--canary-interval-s: must be a number of 0"),
        (["router", "--canary-timeout-s", "0"], "--canary-timeout-s: must be a number above 0"),
    ],
)
def test_wrong_flags_are_named(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(argv)
    assert stopped.value.code == 2 and words in capsys.readouterr().err


def test_the_routers_canary_flags_reach_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from kvloop.router import app

    seen: list[Any] = []
    monkeypatch.setattr(app, "run_router", seen.append)
    main(["router"])
    main(["router", "--canary-interval-s", "30", "--canary-timeout-s", "7"])
    values = [(config.canary_interval_s, config.canary_timeout_s) for config in seen]
    assert values == [(0.0, 60.0), (30.0, 7.0)]

"""`kvloop bench multi-turn` as a user runs it: what it prints, writes and leaves as its status."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from stub_process import RunningStub, running_stub

from kvloop.benchmark.outlets.files import read_report

pytestmark = pytest.mark.integration
RUN_S = 120
SMALL = ("--conversations", "6", "--turns", "2", "--output-length", "4", "--request-length", "20")


def bench(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kvloop.cli", "bench", *words],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "120", **environment},
    )


def ending(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_bytes())
    return document


def test_a_run_leaves_report_page_and_summary_and_has_status_0(tmp_path: Path) -> None:
    with running_stub("--interval-ms", "1", "--kvloop") as stub:
        done = bench(
            *("multi-turn", stub.url, *SMALL, "--arms", "on,bypassed", "--api-key", "s3cret"),
            *("--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")),
            *("--termination-message", str(tmp_path / "end")),
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "TTFT" in done.stdout and "than with the cache bypassed" in done.stdout
    report = read_report(tmp_path / "r.json")
    assert [arm.counts.completed for arm in report.arms] == [12, 12]
    assert report.arms[0].all.hit_rate and report.arms[1].all.hit_rate == 0
    assert report.workload["clients"] == 4 and report.workload["rates"] == []
    assert "--api-key ..." in report.command and "s3cret" not in report.command
    page = (tmp_path / "r.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>") and "s3cret" not in page
    end = ending(tmp_path / "end")
    assert (end["phase"], end["reason"]) == ("Succeeded", "Completed")
    assert end["arms"]["on"]["later_turns"]["ttft_ms"]["mean"] > 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["end", "r.html", "r.json"]


def test_requests_that_failed_give_status_1_and_a_report_all_the_same(tmp_path: Path) -> None:
    with running_stub("--share-429", "1") as stub:
        done = bench(
            *("multi-turn", stub.url, *SMALL, "--arms", "on", "--warmup", "0"),
            *("--json", str(tmp_path / "r.json")),
            KVLOOP_TERMINATION_LOG=str(tmp_path / "end"),
        )
    assert done.returncode == 1 and "http_429" in done.stdout
    assert {one.kind for one in read_report(tmp_path / "r.json").failures} == {"http_429"}
    end = ending(tmp_path / "end")
    assert (end["phase"], end["reason"]) == ("Failed", "NothingAnswered")
    assert end["arms"]["on"]["errors"] == {"http_429": 6}


def test_a_warm_up_that_fails_is_told_in_the_termination_message(tmp_path: Path) -> None:
    with running_stub("--share-503", "1") as stub:
        done = bench("multi-turn", stub.url, *SMALL, KVLOOP_TERMINATION_LOG=str(tmp_path / "end"))
    assert done.returncode == 1 and "503" in done.stderr
    end = ending(tmp_path / "end")
    assert (end["phase"], end["reason"]) == ("Failed", "WarmUpFailed")
    assert "http_503" in end["message"]


def test_a_server_that_is_not_there_is_told_in_the_termination_message(tmp_path: Path) -> None:
    with running_stub() as stub:
        url = stub.url
    done = bench("multi-turn", url, *SMALL, KVLOOP_TERMINATION_LOG=str(tmp_path / "end"))
    assert done.returncode in (1, 2) and url.removeprefix("http://") in done.stderr
    assert ending(tmp_path / "end")["phase"] == "Failed"


def test_a_wrong_outlet_has_status_2_before_anything_is_asked(tmp_path: Path) -> None:
    with running_stub() as stub:
        done = bench(
            *("multi-turn", stub.url, *SMALL, "--config-map", "run-1"),
            *("--termination-message", str(tmp_path / "end")),
        )
        assert stub.seen()["requests"] == []
    assert done.returncode == 2 and "--config-map works in a pod only" in done.stderr
    assert ending(tmp_path / "end")["reason"] == "BadInput"


def test_arms_that_the_server_does_not_know_have_status_2(tmp_path: Path) -> None:
    with running_stub() as stub:
        done = bench(
            *("multi-turn", stub.url, *SMALL, "--arms", "on,bypassed"),
            *("--termination-message", str(tmp_path / "end")),
        )
    assert done.returncode == 2 and "--arms" in done.stderr
    assert ending(tmp_path / "end")["reason"] == "BadInput"


@pytest.mark.parametrize(
    "stop", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_run_that_is_stopped_reports_what_it_has(tmp_path: Path, stop: signal.Signals) -> None:
    with running_stub("--interval-ms", "20") as stub:
        command = ("multi-turn", stub.url, "--turns", "200", "--output-length", "8", "--arms", "on")
        process = subprocess.Popen(
            [sys.executable, "-m", "kvloop.cli", "bench", *command, "--json", tmp_path / "r.json"],
            env={"PATH": "/usr/bin:/bin", "KVLOOP_TERMINATION_LOG": str(tmp_path / "end")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            wait_for_requests(stub, 20)
            process.send_signal(stop)
            _, words = process.communicate(timeout=RUN_S)
        finally:
            process.kill()
            process.wait(RUN_S)
    assert process.returncode == 1, words
    report = read_report(tmp_path / "r.json")
    assert report.is_cut_short and 10 <= len(report.samples) < 800
    end = ending(tmp_path / "end")
    assert (end["phase"], end["reason"], end["is_cut_short"]) == ("Failed", "CutShort", True)


def test_a_run_that_is_interrupted_before_its_load_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "kvloop.cli", "bench", "multi-turn", url],
            env={"PATH": "/usr/bin:/bin", "KVLOOP_TERMINATION_LOG": str(tmp_path / "end")},
            stderr=subprocess.DEVNULL,
        )
        try:
            silent.settimeout(RUN_S)
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            assert process.wait(RUN_S) == 130
            connection.close()
        finally:
            process.kill()
            process.wait(RUN_S)
    assert ending(tmp_path / "end")["reason"] == "CutShort"


def test_two_runs_of_one_load_are_compared_and_an_arm_of_one_is_listed(tmp_path: Path) -> None:
    for name, flags, arms in (("a", ("--kvloop",), "on,bypassed"), ("b", (), "on,all_miss")):
        with running_stub("--interval-ms", "1", *flags) as stub:
            file = str(tmp_path / f"{name}.json")
            load = ("multi-turn", stub.url, *SMALL, "--branches", "1")
            done = bench(*load, "--arms", arms, "--json", file)
            assert done.returncode == 0, done.stderr
            families = read_report(Path(file)).families
            assert len(families) == 6 and set(families.values()) == {0, 2, 4, 6, 8, 10}
    files = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    done = bench("compare", *files, "--metric", "*=inf")
    assert done.returncode == 0, done.stderr
    assert "kvloop" in done.stdout
    assert "intervals are of pairs" in done.stdout
    assert "only in kvloop: bypassed" in done.stdout and "only in b: all_miss" in done.stdout


def wait_for_requests(stub: RunningStub, num: int) -> None:
    ends_at = time.monotonic() + RUN_S
    while time.monotonic() < ends_at:
        if len(stub.seen()["requests"]) >= num:
            return
        time.sleep(0.05)
    raise AssertionError(f"fewer than {num} requests came")

"""SGLang's own router, started as the operator starts it but for how it finds nodes."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from aiohttp.test_utils import TestServer
from pd_clusters import built, container_of
from running import free_port
from sglang_clusters import arguments, sglang
from sglang_server import PAGE, SGLangServer

from kvloop.operator.probe.run import Target, run_probe

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("sglang_router") is None,
        reason="pip install --no-deps sglang-router==0.3.2 setproctitle==1.3.8",
    ),
]
START_S = 300.0


def words(port: int, prefill: str, decode: str) -> list[str]:
    """The operator's, with URLs in the place of labels."""
    made = arguments(sglang(), "router")
    found = (
        made[: made.index("--service-discovery")] + made[made.index("--max-concurrent-requests") :]
    )
    found[found.index("--port") + 1] = str(port)
    found[found.index("--prometheus-port") + 1] = str(free_port())
    return [*found, "--prefill", prefill, "8998", "--decode", decode]


def status(url: str) -> int:
    """0 where nobody answers."""
    try:
        with urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except (URLError, OSError):
        return 0


def path_of(probe: str) -> str:
    path: str = container_of(built(sglang()), "router")[probe]["httpGet"]["path"]
    return path


async def until(url: str, wanted: int) -> None:
    deadline = time.monotonic() + START_S
    while await asyncio.to_thread(status, url) != wanted:
        assert time.monotonic() < deadline, url
        await asyncio.sleep(0.2)


@pytest.mark.timeout(900)
async def test_it_starts_becomes_ready_with_both_roles_and_carries_the_probe(
    tmp_path: Path,
) -> None:
    prefill, decode, port = SGLangServer(), SGLangServer(), free_port()
    router = f"http://127.0.0.1:{port}"
    async with TestServer(prefill.app()) as one, TestServer(decode.app()) as other:
        urls = [str(up.make_url("")).rstrip("/") for up in (one, other)]
        command = [sys.executable, "-m", "sglang_router.launch_router", *words(port, *urls)]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            await until(router + path_of("livenessProbe"), 200)
            await until(router + path_of("readinessProbe"), 200)
            target = Target(
                router=router, model="m", page_size=PAGE, prefills=urls[:1], decodes=urls[1:]
            )
            report = await run_probe(target, timeout_s=120)
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 60)
    assert report.result == "whole", report
    # Both roles got both turns, with the room in which they meet.
    assert len(prefill.bodies) == len(decode.bodies) == 2
    for here, there in zip(prefill.bodies, decode.bodies, strict=True):
        assert here["bootstrap_room"] == there["bootstrap_room"]
        assert here["bootstrap_port"] == 8998


@pytest.mark.timeout(900)
async def test_it_is_not_ready_without_a_decode_node(tmp_path: Path) -> None:
    port = free_port()
    router = f"http://127.0.0.1:{port}"
    async with TestServer(SGLangServer().app()) as one:
        url = str(one.make_url("")).rstrip("/")
        nobody = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "sglang_router.launch_router", *words(port, url, nobody)]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            await until(router + path_of("livenessProbe"), 200)
            assert await asyncio.to_thread(status, router + path_of("readinessProbe")) == 503
        finally:
            process.kill()
            await asyncio.to_thread(process.wait, 60)

"""The life of the process: election, signals, an end in time."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from kubernetes.aio import client as kubernetes_client

from kvloop.operator.api import KubernetesApi, configuration
from kvloop.operator.controllers.base import Controller
from kvloop.operator.errors import ApiError
from kvloop.operator.runtime.health import Checks, serving
from kvloop.operator.runtime.leader import Leader, LeadershipLost
from kvloop.operator.runtime.metrics import Metrics
from kvloop.operator.runtime.operator import Operator
from kvloop.operator.settings import Settings

log = logging.getLogger(__name__)
LATEST = (1, 27)
"""Of an API server that does not tell its version."""
ABSENT_S = 2.0
"""Between tries to reach an API server."""
CONTROLLERS = {
    "SharedCache": "kvloop.operator.controllers.shared_cache:SharedCacheController",
    "PDCluster": "kvloop.operator.controllers.pd_cluster:PDClusterController",
    "MultiTurnBenchmark": "kvloop.operator.controllers.benchmark:BenchmarkController",
}


def load_controllers(settings: Settings) -> dict[str, Controller]:
    """Of all kinds."""
    found: dict[str, Controller] = {}
    for kind, place in CONTROLLERS.items():
        module, name = place.split(":")
        found[kind] = getattr(import_module(module), name)(settings)
    return found


async def run(settings: Settings, kubeconfig: Path | None, *, elect: bool) -> None:
    """Until SIGTERM or SIGINT, or until another leads (LeadershipLost)."""
    work = asyncio.ensure_future(_work(settings, kubeconfig, elect=elect))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        log.info("stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What lives as long as the process."""

    settings: Settings
    configured: kubernetes_client.Configuration
    api: KubernetesApi
    metrics: Metrics
    checks: Checks


async def _work(settings: Settings, kubeconfig: Path | None, *, elect: bool) -> None:
    configured = await configuration(kubeconfig)
    metrics, checks = Metrics(), Checks()
    api = KubernetesApi(configured, timeout_s=settings.api_timeout_s, metrics=metrics)
    try:
        async with serving(settings.port, checks, metrics) as port:
            log.info("serving /healthz, /readyz and /metrics on port %d", port)
            known = replace(settings, kubernetes=await _server_version(api, checks))
            parts = _Parts(
                settings=known, configured=configured, api=api, metrics=metrics, checks=checks
            )
            await (_lead(parts) if elect else _operate(parts))
    finally:
        await api.close()


async def _server_version(api: KubernetesApi, checks: Checks) -> tuple[int, int]:
    """Waits for the API server."""
    while True:
        try:
            said = await api.call("GET", "/version")
        except ApiError as error:
            log.warning("waiting for the API server: %s", error)
            checks.ready = [partial(list, [f"waiting for the API server: {error}"])]
            await asyncio.sleep(ABSENT_S)
        else:
            checks.ready = []
            return version_of(said)


def version_of(said: Mapping[str, str]) -> tuple[int, int]:
    """Some write a minor version as 27+."""
    major, minor = (re.match(r"\d+", said.get(part, "")) for part in ("major", "minor"))
    return (int(major[0]), int(minor[0])) if major and minor else LATEST


async def _lead(parts: _Parts) -> None:
    """Terms of leading, until another leads."""
    identity = f"{socket.gethostname()}_{os.getpid()}_{os.urandom(3).hex()}"
    leader = Leader(parts.api, namespace=parts.settings.own_namespace, identity=identity)
    while True:
        await leader.acquire()
        try:
            await _first_end(leader.keep(), _operate(parts))
        except LeadershipLost as error:
            if error.is_taken:
                raise
            log.warning("standing by: %s", error)
        finally:
            await leader.release()


async def _first_end(*works: Coroutine[Any, Any, None]) -> None:
    """The first that ends ends all, in its way."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _operate(parts: _Parts) -> None:
    controllers = load_controllers(parts.settings)
    operator = Operator(parts.settings, parts.configured, controllers, parts.api, parts.metrics)
    parts.metrics.leader.set(1)
    parts.checks.alive, parts.checks.ready = [operator.stuck], [operator.not_ready]
    try:
        await operator.run()
    finally:
        parts.metrics.leader.set(0)
        parts.metrics.forget_all()
        parts.checks.alive, parts.checks.ready = [], []
        for controller in controllers.values():
            await controller.close()

"""`kvloop store --lease`: one of several masters, of which one runs at a time."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kvloop.benchmark.outlets.in_cluster import InCluster
from kvloop.cli.store.health import health_server
from kvloop.cli.store.leadership import Leadership
from kvloop.cli.store.lease import Candidate, Timing
from kvloop.cli.store.lease_api import InClusterLease
from kvloop.shared_cache.backends.mooncake.store_server import StoreConfig, own_master
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.stop_signals import stop_signals

_GUARD_PERIOD_S = 0.2
_STUCK_S = 60.0
"""Without a look for so long the process is of no use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseFlags:
    """ConfigError where they do not fit the store."""

    lease: str
    """NAMESPACE/NAME."""
    identity: str
    lease_s: float = 15.0
    health_port: int | None = None

    def check(self, config: StoreConfig) -> None:
        """Before anything starts."""
        if self.lease.count("/") != 1 or not all(self.lease.split("/")):
            raise ConfigError(f"--lease must be NAMESPACE/NAME, got {self.lease!r}")
        if not self.identity:
            raise ConfigError("--lease needs --identity POD or POD_UID, another in each pod")
        if self.lease_s < 3:
            raise ConfigError(f"--lease-s must be 3 or more, got {self.lease_s:g}")
        if config.segment_bytes:
            raise ConfigError(
                "--lease is of masters: set --segment-size 0, and start stores with --master"
            )
        for flag, value in (("--master", config.master), ("--ha", config.ha)):
            if value:
                raise ConfigError(f"--lease and {flag} are two ways to find a leader: remove one")


def run_elected(config: StoreConfig, flags: LeaseFlags, report: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; call from the main thread of a process of its own."""
    flags.check(config)
    timing = Timing(lease_s=flags.lease_s)
    namespace, _, name = flags.lease.partition("/")
    cluster = InCluster.found(os.environ, flag="--lease")
    api = InClusterLease(cluster, namespace, name, timing.call_s)
    with stop_signals() as stop, own_master(config) as master:
        assert master is not None
        candidate = Candidate(flags.identity, timing)
        leadership = Leadership(api, candidate, master, report)
        beat = _Beat()
        with (
            _guarded(leadership),
            health_server(
                flags.health_port,
                is_alive=beat.is_there,
                is_ready=lambda: leadership.is_ready,
            ),
        ):
            while not stop.is_set():
                leadership.tick()
                beat.now()
                stop.wait(timing.period_s)
            leadership.resign()


class _Beat:
    """When the loop was last seen."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def now(self) -> None:
        self._at = time.monotonic()

    def is_there(self) -> bool:
        return time.monotonic() - self._at < _STUCK_S


@contextlib.contextmanager
def _guarded(leadership: Leadership) -> Iterator[None]:
    done = threading.Event()

    def guard() -> None:
        while not done.wait(_GUARD_PERIOD_S):
            leadership.guard()

    thread = threading.Thread(target=guard, name="lease-guard", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

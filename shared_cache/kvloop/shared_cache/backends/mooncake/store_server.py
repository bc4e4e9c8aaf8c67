"""A whole Mooncake store on one machine: the master as a child, and this process's memory in it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

from kvloop.shared_cache.backends.mooncake.library import load_mooncake
from kvloop.shared_cache.backends.mooncake.master import MooncakeMaster
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.memory_limit import available_memory
from kvloop.shared_cache.storage_errors import StorageError, StorageUnavailable

_WATCH_PERIOD_S = 0.5
_CLOSE_DEADLINE_S = 5.0
_MIN_SEGMENT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """What `kvloop store` runs."""

    host: str = "127.0.0.1"
    """Where the master listens, and under which clients reach the segment."""
    port: int = 50051
    """Of the master."""
    metrics_port: int = 9003
    """Of the master's Prometheus metrics, over HTTP."""
    segment_bytes: int = 4 << 30
    """Memory of this process given to the store."""
    protocol: Literal["tcp", "rdma"] = "tcp"
    device_name: str = ""
    """RDMA devices, comma-separated; empty: all."""
    restart_master: bool = False
    """Start the master again when it dies; its keys are lost either way."""

    def __post_init__(self) -> None:
        for name in ("port", "metrics_port"):
            if not 0 < getattr(self, name) < 65536:
                raise ConfigError(f"{name} must be within 1 .. 65535, got {getattr(self, name)}")
        if self.port == self.metrics_port:
            raise ConfigError(f"metrics_port must differ from port, got {self.port} for both")
        if self.protocol not in ("tcp", "rdma"):
            raise ConfigError(f"protocol must be tcp or rdma, got {self.protocol!r}")
        if self.segment_bytes < _MIN_SEGMENT_BYTES:
            raise ConfigError(
                f"segment_bytes must be at least {_MIN_SEGMENT_BYTES}, got {self.segment_bytes}"
            )


def run_store(config: StoreConfig, report: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT; call from the main thread of a process of its own.

    `report` gets one line when the store is ready and one for each later change. Raises
    ConfigError or StorageError where it cannot start. A master that dies does not end the store:
    the segment joins the next master at that address by itself, within seconds. Stopped while it
    has none, the process ends here, with exit code 0.
    """
    _require_memory(config.segment_bytes)
    module = load_mooncake("store")
    master = MooncakeMaster(config.host, config.port, config.metrics_port)
    with _stop_signals() as stop:
        try:
            master.start()
            segment = _mount(module, config)
            report(
                f"store ready: master {master.address}, {config.segment_bytes / 2**30:.2f} GiB "
                f"over {config.protocol}, metrics http://{config.host}:{config.metrics_port}/metrics"
            )
            _watch(master, config, stop, report)
            is_unmounted = _unmount(segment)
        finally:
            master.stop()
    if not is_unmounted:
        sys.stdout.flush()
        os._exit(0)  # without a master the library's destructors wait for it for 12 s more


def _watch(
    master: MooncakeMaster,
    config: StoreConfig,
    stop: threading.Event,
    report: Callable[[str], None],
) -> None:
    is_up = True
    while not stop.wait(_WATCH_PERIOD_S):
        if master.exit_code is None:
            continue
        if is_up:
            report(f"the master died (exit code {master.exit_code}); its keys are lost")
        is_up = config.restart_master and _restart(master, report)


def _restart(master: MooncakeMaster, report: Callable[[str], None]) -> bool:
    try:
        master.start()
    except StorageError as error:
        report(f"{error}; trying again")
        return False
    report(f"the master runs again at {master.address}")
    return True


def _mount(module: Any, config: StoreConfig) -> Any:
    store = module.MooncakeDistributedStore()
    status = store.setup(
        config.host,
        "P2PHANDSHAKE",
        config.segment_bytes,
        0,
        config.protocol,
        config.device_name,
        f"{config.host}:{config.port}",
    )
    if status:
        raise StorageUnavailable(
            f"mounting {config.segment_bytes} bytes over {config.protocol} failed with {status}"
        )
    return store


def _unmount(segment: Any) -> bool:
    """Leave the master in order; False where the library hangs, as it does with a dead one."""
    thread = threading.Thread(target=segment.close, daemon=True)
    thread.start()
    thread.join(_CLOSE_DEADLINE_S)
    return not thread.is_alive()


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, on_signal) for number in _STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _require_memory(num_bytes: int) -> None:
    room = available_memory()
    if room is not None and num_bytes > room:
        raise ConfigError(
            f"segment_bytes: {num_bytes / 2**30:.2f} GiB were asked for but only "
            f"{room / 2**30:.2f} GiB of memory are left"
        )

"""A Mooncake store on one machine: a master as a child, this process's memory in it, or both."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from kvloop.shared_cache.backends.mooncake.master import MooncakeMaster
from kvloop.shared_cache.backends.mooncake.master_options import quotas_yaml
from kvloop.shared_cache.backends.mooncake.segment import Segment
from kvloop.shared_cache.backends.mooncake.store_config import StoreConfig
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.memory_limit import available_memory
from kvloop.shared_cache.stop_signals import stop_signals
from kvloop.shared_cache.storage_errors import StorageError

__all__ = ["StoreConfig", "own_master", "run_store"]

_WATCH_PERIOD_S = 0.5
Report = Callable[[str], None]


def run_store(config: StoreConfig, report: Report = print) -> None:
    """Serve until SIGTERM or SIGINT; call from the main thread of a process of its own.

    `report` gets one line when the store is ready and one for each later change. Raises
    ConfigError or StorageError where it cannot start. A master that dies does not end the store:
    the segment joins the next master at that address, or the next leader, by itself, within
    seconds. Stopped while it has none, the process ends here, with exit code 0.
    """
    _require_memory(config.segment_bytes)
    with stop_signals() as stop, own_master(config) as master:
        if master is not None:
            master.start()
        segment = Segment(config) if config.segment_bytes else None
        report(_ready(config, segment))
        if master is not None:
            _watch(master, config, stop, report)
        stop.wait()
        is_unmounted = segment is None or segment.unmount()
    if not is_unmounted:
        sys.stdout.flush()
        os._exit(0)  # the library's destructors would wait for the master for 12 to 30 s more


def _ready(config: StoreConfig, segment: Segment | None) -> str:
    parts = [f"store ready: master {config.entry}"]
    if segment is not None:
        parts.append(f"{config.segment_bytes / 2**30:.2f} GiB over {config.protocol}")
        parts.append(f"segment {segment.name}")
    if not config.master:
        parts.append(f"metrics http://{config.host}:{config.metrics_port}/metrics")
    return ", ".join(parts)


@contextlib.contextmanager
def own_master(config: StoreConfig) -> Iterator[MooncakeMaster | None]:
    """Our master, not yet started; stopped at the end. None where the segment joins another."""
    if config.master:
        yield None
        return
    with _quotas_file(config) as quotas:
        options = replace(config.master_options, tenant_quotas=quotas)
        master = MooncakeMaster(config.host, config.port, config.metrics_port, options)
        try:
            yield master
        finally:
            master.stop()


@contextlib.contextmanager
def _quotas_file(config: StoreConfig) -> Iterator[Path | None]:
    """The master reads the quotas when it starts, and writes there what its admin API changes."""
    if not config.tenant_quotas:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="kvloop-store-") as folder:
        path = Path(folder, "tenant-quotas.yaml")
        path.write_text(quotas_yaml(config.tenant_quotas))
        yield path


def _watch(
    master: MooncakeMaster, config: StoreConfig, stop: threading.Event, report: Report
) -> None:
    """Until `stop`: say when the master dies, and start it again where that is wanted."""
    is_up = True
    lost = "another takes over" if config.ha else "its keys are lost"
    while not stop.wait(_WATCH_PERIOD_S):
        if master.exit_code is None:
            continue
        if is_up:
            report(f"the master died (exit code {master.exit_code}); {lost}")
        is_up = config.restart_master and _restart(master, report)


def _restart(master: MooncakeMaster, report: Report) -> bool:
    try:
        master.start()
    except StorageError as error:
        report(f"{error}; trying again")
        return False
    report(f"the master runs again at {master.address}")
    return True


def _require_memory(num_bytes: int) -> None:
    room = available_memory()
    if room is not None and num_bytes > room:
        raise ConfigError(
            f"segment_bytes: {num_bytes / 2**30:.2f} GiB were asked for but only "
            f"{room / 2**30:.2f} GiB of memory are left"
        )

"""One run of the benchmark, from the backend's configuration to its exit status."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from kvloop.benchmark.storage.arm import Arm, CheckedArm, MemcpyArm, UncheckedArm
from kvloop.benchmark.storage.exists import time_exists
from kvloop.benchmark.storage.load import StorageLoad
from kvloop.benchmark.storage.measure import measure
from kvloop.benchmark.storage.report import StorageReport, show
from kvloop.benchmark.storage.result import rows
from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import seal
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.storage_errors import StorageError, StorageUnavailable

Checksums = Literal["on", "off", "both"]
_DEADLINE_S = 60.0
_FOLDERS = ("root", "mount")  # of the backends that keep files


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageBenchConfig:
    """What `kvloop bench storage` was asked for."""

    backend: str
    extra_config: Mapping[str, Any]
    load: StorageLoad
    checksums: Checksums = "both"
    dynamic_modules: Sequence[str] = ()
    json_file: Path | None = None
    console: Console = field(default_factory=Console)


def run_storage_bench(config: StorageBenchConfig) -> int:
    """Measure and show; 1 where pages were lost. Raises ConfigError and StorageUnavailable."""
    if config.json_file is not None and not config.json_file.absolute().parent.is_dir():
        raise ConfigError(f"--json {config.json_file}: there is no such directory")
    report = measure_storage(config)
    show(report, config.console)
    if config.json_file is not None:
        config.json_file.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    return int(any(row.pages_missed for row in report.rows))


def measure_storage(config: StorageBenchConfig) -> StorageReport:
    """Everything under a namespace of its own, which is cleared at the end."""
    load, namespace = config.load, os.urandom(32)
    pool = HostPool(load.shape, load.num_slots)
    _fill(pool, namespace)
    with ExitStack() as stack:
        guard = stack.enter_context(_opened(config, pool, namespace))
        each = chain(_own_arms(config, guard, pool, namespace), _limits(config, guard, pool))
        arms = [stack.enter_context(closing(arm)) for arm in each]
        exists = time_exists(load, guard, range(pool.num_slots))
        runs = list(measure(load, arms))
        stats = guard.status()["stats"]
    limit = arms[-1].name
    return StorageReport(
        backend=config.backend,
        load=load,
        limit=limit,
        rows=rows(runs, load.shape.slot_bytes, limit),
        exists=exists,
        runs=runs,
        stats=stats,
    )


@contextmanager
def _opened(
    config: StorageBenchConfig, pool: HostPool, namespace: bytes
) -> Iterator[GuardedBackend]:
    modules = config.dynamic_modules
    opener = backend_opener(config.backend, config.extra_config, pool, namespace, modules)
    limits = GuardConfig(deadline_s=_DEADLINE_S, num_threads=max(4, config.load.threads))
    guard = GuardedBackend(opener, pool, name=config.backend, namespace=namespace, config=limits)
    if not guard.wait_settled(_DEADLINE_S) or guard.state != "attached":
        state, error = guard.state, guard.last_error
        guard.close()
        raise StorageUnavailable(f"storage backend {config.backend!r} is {state}: {error}")
    try:
        yield guard
    finally:
        guard.close()
        _clear(opener, namespace, config.console)


def _clear(opener: BackendOpener, namespace: bytes, console: Console) -> None:
    """Once the guard has gone: it would begin the store anew, and leave a record."""
    try:
        with closing(opener()) as backend:
            backend.clear()
    except StorageError as error:
        console.print(
            f"what was written may be left in namespace {namespace.hex()} (`kvloop cache evict "
            f"--all --namespace` removes it): {error}",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )


def _own_arms(
    config: StorageBenchConfig, guard: GuardedBackend, pool: HostPool, namespace: bytes
) -> list[Arm]:
    store = PageStore(guard, pool, namespace=namespace, writer="prefill")
    checked, unchecked = CheckedArm(store, guard), UncheckedArm(guard)
    choice: dict[Checksums, list[Arm]] = {
        "on": [checked],
        "off": [unchecked],
        "both": [checked, unchecked],
    }
    return choice[config.checksums]


def _limits(config: StorageBenchConfig, guard: GuardedBackend, pool: HostPool) -> Iterator[Arm]:
    """memcpy, and the storage's own limit where there is one: the last counts."""
    fields = config.extra_config
    yield MemcpyArm(pool)
    if config.backend == "mooncake":
        from kvloop.benchmark.storage.raw_mooncake import RawMooncakeArm

        yield RawMooncakeArm(fields, pool)
    folder = next((Path(str(fields[name])) for name in _FOLDERS if fields.get(name)), None)
    if folder is None:
        return
    from kvloop.benchmark.storage.raw_file import RawFileArm

    is_direct = bool(guard.status()["stats"].get("is_direct"))
    try:
        for is_rewritten in (True, False):
            yield RawFileArm(
                folder, config.load, pool, is_direct=is_direct, is_rewritten=is_rewritten
            )
    except OSError as error:
        raise ConfigError(f"{folder}: cannot hold a file to compare with: {error}") from error


def _fill(pool: HostPool, namespace: bytes) -> None:
    """All slots, with content that does not compress, sealed under some key."""
    for slot in pool.alloc(pool.num_slots) or ():
        pool.view(slot)[:] = os.urandom(pool.shape.slot_bytes)
        seal(pool.view(slot), pool.shape, bytes(32), namespace, 0, "prefill")

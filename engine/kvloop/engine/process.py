"""The engine process: reads its config from standard input, then turns the loop until SIGTERM."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from kvloop.engine.event_publication import Publication
from kvloop.engine.link import EngineLink
from kvloop.engine.messages import (
    STACKS_SIGNAL,
    STOP,
    Call,
    Died,
    EngineStart,
    Hello,
    LoadReport,
    Reply,
    StorageAction,
    ToEngine,
    ToFront,
)
from kvloop.engine.node_config import NodeConfig
from kvloop.engine.page_check import PageChecks
from kvloop.engine.parts import NodeParts, build_parts
from kvloop.engine.storage_admin import Policies, StorageAdmin
from kvloop.engine.transfer import Transfer
from kvloop.shared_cache.backend_config import split_prefetch_settings
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.storage_change import StorageChange
from kvloop.shared_cache.wire import NodeLoad

log = logging.getLogger("kvloop.engine")
_IDLE_S = 0.005
_LOAD_EVERY_S = 0.1
_PR_SET_PDEATHSIG = 1
_DECODE_NICE = 7


class Scheduler(Policies, Protocol):
    """What the loop drives; one for each role."""

    def handle(self, message: ToEngine) -> None: ...
    def intercept(self, message: ToEngine) -> bool: ...
    def step(self) -> bool: ...
    def load(self) -> NodeLoad: ...
    def flush(self) -> tuple[int, int]: ...
    def describe(self) -> dict[str, object]: ...
    def close(self, timeout_s: float) -> None: ...


MakeScheduler = Callable[[NodeParts, Transfer, Callable[[ToFront], None]], Scheduler]


def run_engine(make_scheduler: MakeScheduler) -> None:
    """The process's main; ends on SIGTERM, or with its parent."""
    start = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineStart)
    die_with_parent(start.parent)
    logging.basicConfig(
        level=start.config.log_level.upper(),
        format=f"%(asctime)s %(levelname)s {start.config.role}-engine %(message)s",
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(STACKS_SIGNAL, all_threads=True)
    if start.config.role == "decode":
        # Where both roles share the cores a prompt goes before a token, as in one server's batch.
        yield_cores(_DECODE_NICE)
    link = EngineLink(start.endpoint)
    try:
        _serve(start.config, link, make_scheduler)
    except Exception as error:
        is_config = isinstance(error, ConfigError)
        if not is_config:  # that the front says in words
            log.exception("the engine ends")
        link.send(Died(str(error), is_config))
        link.close()
        os._exit(1)
    link.close()
    # The transfer engine's threads have no stop; nothing of ours is left to do.
    os._exit(0)


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies: an orphan would go on writing KV."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def yield_cores(nice: int) -> None:
    """Let others go first; the engine is its own session, and Linux may share cores by session."""
    os.nice(nice)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(nice))


def _serve(config: NodeConfig, link: EngineLink, make_scheduler: MakeScheduler) -> None:
    # SIGTERM's default ends a process that is still loading at once: it holds nothing yet.
    stop = threading.Event()
    publication = Publication(config)
    parts = build_parts(config, publication.recorder)
    publication.count_on(parts.metrics.kv_events)
    transfer = Transfer(config.transfer_host, config.transfer_protocol, config.transfer_device)
    transfer.register(parts.kv.address, parts.kv.num_bytes)
    scheduler = make_scheduler(parts, transfer, link.send)
    limits, _ = split_prefetch_settings(config.hicache_storage_backend_extra_config)
    scheduler.set_prefetch_limits(*limits)
    admin = StorageAdmin(
        parts.store.guard,
        scheduler,
        link.send,
        config.hicache_dynamic_modules,
        admin_key=config.admin_api_key,
        attached=StorageChange(
            backend=config.hicache_storage_backend,
            extra_config=config.hicache_storage_backend_extra_config,
        ),
    )
    checks = PageChecks(parts, link.send)
    link.intercept = lambda message: (
        _stops(message, stop)
        or _answers(message, parts, admin, link)
        or checks.takes(message)
        or scheduler.intercept(message)
    )
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    link.send(_hello(parts, transfer, publication))
    _loop(scheduler, admin, link, publication, stop)
    scheduler.close(config.drain_timeout_s)
    publication.close()
    parts.store.close()


def _loop(
    scheduler: Scheduler,
    admin: StorageAdmin,
    link: EngineLink,
    publication: Publication,
    stop: threading.Event,
) -> None:
    is_busy, reported_at, reported = False, 0.0, NodeLoad()
    while not stop.is_set():
        for message in link.receive(0 if is_busy else _IDLE_S):
            if isinstance(message, Call):
                reported = scheduler.load()  # who asks wants no older one
                link.send(LoadReport(reported))
                link.send(Reply(message.call, _call(message.name, scheduler)))
            else:
                scheduler.handle(message)
        admin.turn()
        is_busy = scheduler.step()
        publication.turn()
        now = time.monotonic()
        if now - reported_at > _LOAD_EVERY_S and (load := scheduler.load()) != reported:
            link.send(LoadReport(load))
            reported_at, reported = now, load


def _stops(message: ToEngine, stop: threading.Event) -> bool:
    is_stop = isinstance(message, Call) and message.name == STOP
    if is_stop:
        stop.set()
    return is_stop


def _answers(message: ToEngine, parts: NodeParts, admin: StorageAdmin, link: EngineLink) -> bool:
    """What the loop need not be asked, on the link's thread."""
    if isinstance(message, StorageAction):
        admin.start(message)
    elif isinstance(message, Call) and message.name == "metrics":
        link.send(Reply(message.call, parts.render_metrics()))
    elif isinstance(message, Call) and message.name == "storage_status":
        link.send(Reply(message.call, msgspec.json.encode(admin.status())))
    else:
        return False
    return True


def _call(name: str, scheduler: Scheduler) -> bytes:
    """Calls that need the loop's own state."""
    if name == "flush_cache":
        freed, stayed = scheduler.flush()
        return msgspec.json.encode({"freed_pages": freed, "pages_in_use": stayed})
    assert name == "describe", name
    return msgspec.json.encode(scheduler.describe())


def _hello(parts: NodeParts, transfer: Transfer, publication: Publication) -> Hello:
    return Hello(
        incarnation=parts.identity.incarnation,
        namespace=parts.identity.namespace,
        session=transfer.session,
        max_context=parts.max_context,
        model_path=str(parts.loaded.files.directory),
        info={
            "dtype": str(parts.loaded.dtype).removeprefix("torch."),
            "device": str(parts.kv.device),
            "device_pool_pages": parts.kv.num_pages,
            "host_pool_slots": parts.pool.num_slots,
            "object_bytes": parts.shape.object_bytes,
            **publication.info,
        },
        events=publication.url,
    )

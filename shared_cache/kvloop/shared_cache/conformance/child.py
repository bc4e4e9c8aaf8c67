"""Another process on the same store: a writer to race with or to kill, or opener after opener.

Reads its order (JSON) from the first line of stdin, says `ready`, and begins at the next line.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from kvloop.shared_cache.conformance.pages import page_image
from kvloop.shared_cache.conformance.spec import BackendSpec
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

_SETTLE_S = 1.0
_NOISE_BYTES = 2 << 20


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is to do."""

    spec: dict[str, Any]
    shape: dict[str, Any]
    namespace: bytes
    keys: list[bytes]
    version: int = 0
    """Of the pages that it writes."""
    pages_per_call: int = 4
    dies_at: float | None = None
    """When it kills itself, in calls: 2.5 is half-way through the third, by the second's time."""
    num_cycles: int = 0
    """Above 0: open, use and close that often in each round, and report what is held."""


class Holdings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process holds of the machine."""

    descriptors: int
    threads: int
    mappings: int
    locked_bytes: int
    resident_bytes: int

    def growth(self, before: Holdings) -> dict[str, int]:
        """By field."""
        names = self.__struct_fields__
        return {name: getattr(self, name) - getattr(before, name) for name in names}


def main() -> None:
    order = msgspec.json.decode(sys.stdin.readline(), type=Order)
    spec = BackendSpec(**_with_tuple(order.spec))
    pool = HostPool(PageShape(**order.shape), len(order.keys))
    slots = pool.alloc(len(order.keys))
    assert slots is not None
    for key, slot in zip(order.keys, slots, strict=True):
        image = page_image(pool.shape, order.namespace, key, order.version)
        pool.view(slot)[:] = image
    if order.num_cycles:
        _cycle(order, spec, pool, slots)
    else:
        _write(order, spec, pool, slots)


def _write(order: Order, spec: BackendSpec, pool: HostPool, slots: list[int]) -> None:
    """Set all pages, batch by batch; each answer is a line."""
    backend = spec.open(pool, order.namespace)
    _say("ready")
    sys.stdin.readline()
    call_s = 0.0
    for i, start in enumerate(range(0, len(slots), order.pages_per_call)):
        if order.dies_at is not None and i == int(order.dies_at):
            _die_in((order.dies_at - i) * call_s)
        batch = slice(start, start + order.pages_per_call)
        begin = time.monotonic()
        answers = backend.set(order.keys[batch], slots[batch])
        call_s = time.monotonic() - begin
        _say(json.dumps(answers))
    _say("done")
    sys.stdin.readline()
    backend.close()


def _die_in(seconds: float) -> None:
    """By SIGKILL: nothing is cleaned up, nothing is flushed."""
    kill = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    kill.daemon = True
    kill.start()


def _cycle(order: Order, spec: BackendSpec, pool: HostPool, slots: list[int]) -> None:
    """Round after round, each at its `go`; what is held before and after it is a line.

    The garbage collector is off: in a node it may not come for hours.
    """
    gc.disable()
    floor = holdings()
    for _ in range(order.num_cycles):
        _use_once(order, spec, pool, slots)
    before = _settled(holdings())
    _say("ready")
    # The pool is locked once, however often it is: compared with what was before the first opening.
    before = msgspec.structs.replace(before, locked_bytes=floor.locked_bytes)
    while sys.stdin.readline():
        for _ in range(order.num_cycles):
            _use_once(order, spec, pool, slots)
        after = _settled(before)
        _say(msgspec.json.encode((before, after)).decode())
        before = msgspec.structs.replace(after, locked_bytes=floor.locked_bytes)


def _use_once(order: Order, spec: BackendSpec, pool: HostPool, slots: list[int]) -> None:
    backend = spec.open(pool, order.namespace)
    backend.set(order.keys, slots)
    backend.get(order.keys, slots)
    if spec.can_keep_records:
        backend.put_small("cycle", b"record")
    backend.close()


def holdings() -> Holdings:
    """Of this process, now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    sizes = {
        name: int(status.get(name, "0 kB").split()[0]) << 10 for name in ("VmRSS", "VmLck", "VmPin")
    }
    return Holdings(
        descriptors=len(os.listdir("/proc/self/fd")),
        threads=int(status["Threads"]),
        mappings=Path("/proc/self/maps").read_text().count("\n"),
        locked_bytes=sizes["VmLck"] + sizes["VmPin"],
        resident_bytes=sizes["VmRSS"],
    )


def _settled(floor: Holdings) -> Holdings:
    """What is held once threads that end behind `close` have ended."""
    until = time.monotonic() + _SETTLE_S
    while True:
        time.sleep(0.1)
        now = holdings()
        growth = now.growth(floor)
        is_small = growth["threads"] <= 0 and growth["descriptors"] <= 0
        if (is_small and growth["resident_bytes"] < _NOISE_BYTES) or time.monotonic() > until:
            return now


def _with_tuple(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "dynamic_modules": tuple(spec["dynamic_modules"])}


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()

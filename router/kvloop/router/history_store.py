"""The shared cache as the router uses it: small records of one namespace, read in no time or not.

No call waits for the store on the event loop's thread, none that is read for longer than its
deadline, and what waits to be written is bounded. What the store does is counted, never raised.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, Literal, TypeVar

from kvloop.router.history_record import (
    MAX_BYTES,
    Record,
    decode_record,
    encode_record,
    record_name,
)
from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.backends.chain.tier import Tier
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.store_tools.address import StoreAddress, tiers
from kvloop.shared_cache.workers import Workers

Result = TypeVar("Result")
WriteResult = Literal["stored", "dropped", "too_large", "failed"]
Fetch = Callable[[bytes, int], Record | None]
"""(digest, number of messages) -> record; raises NoAnswer or DamagedRecord."""
log = logging.getLogger(__name__)

_NO_PAGES = PageShape(num_layers=1, page_size=1, num_kv_heads=1, head_size=1, itemsize=1)
_CALL_S = 2.0
"""After which the store is given up for a while; a read's own deadline is shorter."""
_MAX_READS = 8
_MAX_WRITES = 256
_SLOW_READS = 3
"""Reads in a row that missed their deadline, after which none is tried for a while."""
_PAUSE_S = 5.0
_CLOSE_S = 2.0
_TIER_OF = {"chain": "far", "zones": "local"}
_WITH_TORCH = ("aibrix", "dynamic")


class NoAnswer(Exception):
    """The store is not there, or slow."""


class SharedRecords:
    """Opened once a namespace is known; see `follow`. Thread-safe but for `ask`."""

    def __init__(
        self, address: StoreAddress, count: Callable[[WriteResult], None], read_s: float
    ) -> None:
        """Raise ConfigError for an address that is none; connects to nothing yet.

        `count` hears of every record that was to be written, on another thread.
        """
        self._address = record_store(address)
        self._pool = HostPool(_NO_PAGES, 1)
        self._address.opener(self._pool, bytes(32))
        self._count = count
        self._read_s = read_s
        self._tier: Tier | None = None
        self._problem: str | None = None
        self._namespace = ""
        self._lock = threading.Lock()
        self._num_writes = 0
        self._num_reads = 0
        self._num_slow = 0
        self._pause_until = 0.0
        self._readers = Workers(_MAX_READS, "history-read")
        self._writer = Workers(1, "history-write")

    def follow(self, namespaces: Sequence[str]) -> None:
        """Read and write the records of the nodes' namespace, hexadecimal, from soon on.

        Of several it stays with the one it has.
        """
        if namespaces and self._namespace not in namespaces:
            self._namespace = namespaces[0]
            self._writer.submit(self._open, self._namespace)

    def status(self) -> dict[str, str | None]:
        """For people; never blocks."""
        tier = self._tier
        if tier is None:
            return {"backend": self._address.label, "state": "detached", "last_error": None}
        state = "attached" if tier.is_up else "open"
        return {"backend": self._address.label, "state": state, "last_error": tier.last_error}

    @property
    def namespace(self) -> str:
        """Hexadecimal; empty while none is known."""
        return self._namespace

    def storage_status(self) -> dict[str, Any]:
        """For the admin API; never blocks."""
        tier = self._tier
        return {
            "state": tier.state if tier is not None else "attaching",
            "last_error": tier.last_error if tier is not None else self._problem,
            "namespace": self._namespace,
            "stats": tier.stats() if tier is not None else {},
        }

    async def ask(self, work: Callable[[Fetch], Result]) -> Result:
        """`work(fetch)` on a thread; raises NoAnswer at the deadline, or what `fetch` raises."""
        if self._num_reads >= _MAX_READS or time.monotonic() < self._pause_until:
            raise NoAnswer("too many reads wait, or the last ones were slow")
        self._num_reads += 1
        future = self._readers.submit(work, self._fetch)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: _call_soon(loop, self._read_ended))
        try:
            result = await asyncio.wait_for(asyncio.wrap_future(future), self._read_s)
        except TimeoutError:
            self._note_slow()
            raise NoAnswer(f"no answer within {self._read_s} s") from None
        self._num_slow = 0
        return result

    def put(self, digest: bytes, make: Callable[[], Record]) -> None:
        """Write later, on a thread; `make` is called there too."""
        with self._lock:
            is_full = self._num_writes >= _MAX_WRITES
            self._num_writes += not is_full
        if is_full:
            self._count("dropped")
        else:
            self._writer.submit(self._write, digest, make)

    def close(self) -> None:
        """Write what waits, within some seconds, and let go of the store. Once only."""
        ended: Future[None] = self._writer.submit(lambda: None)
        wait([ended], _CLOSE_S)
        for workers in (self._writer, self._readers):
            workers.stop()
        if self._tier is not None:
            self._tier.close()

    def _open(self, namespace: str) -> None:
        before, self._tier = self._tier, None
        if before is not None:
            before.close()
        try:
            self._tier = self._opened(bytes.fromhex(namespace))
            self._problem = None
        except Exception as error:
            self._problem = f"namespace {namespace!r}: {error}"
            log.exception(
                "no record of an answer is shared: namespace %r, %s", namespace, self.status()
            )

    def _opened(self, namespace: bytes) -> Tier:
        opener, name = self._backend_opener(namespace), self._address.label
        return Tier(opener, self._pool, name=name, namespace=namespace, deadline_s=_CALL_S)

    def _backend_opener(self, namespace: bytes) -> Callable[[], StorageBackend]:
        opener = self._address.opener(self._pool, namespace)

        def open_backend() -> StorageBackend:
            if self._address.backend in _WITH_TORCH and sys.modules.get("torch", "") is None:
                del sys.modules["torch"]  # see tokenizer.leave_torch_out
            return opener()

        return open_backend

    def _fetch(self, digest: bytes, num_messages: int) -> Record | None:
        tier = self._tier
        answer = tier.get_small(record_name(digest)) if tier is not None else None
        if answer is None:
            raise NoAnswer("the store does not answer")
        if answer.value is None:
            return None
        return decode_record(digest, answer.value, num_messages)

    def _write(self, digest: bytes, make: Callable[[], Record]) -> None:
        result: WriteResult = "failed"
        try:
            result = self._stored(digest, make())
        except Exception:
            log.exception("a record of an answer could not be written")
        finally:
            with self._lock:
                self._num_writes -= 1
            self._count(result)

    def _stored(self, digest: bytes, record: Record) -> WriteResult:
        value = encode_record(digest, record)
        if len(value) > MAX_BYTES:
            return "too_large"
        tier = self._tier
        is_stored = tier is not None and tier.put_small(record_name(digest), value)
        return "stored" if is_stored else "failed"

    def _read_ended(self) -> None:
        self._num_reads -= 1

    def _note_slow(self) -> None:
        self._num_slow += 1
        if self._num_slow >= _SLOW_READS:
            self._num_slow, self._pause_until = 0, time.monotonic() + _PAUSE_S


def record_store(address: StoreAddress) -> StoreAddress:
    """The one store that keeps the records of one that is made of several.

    The others have work of their own with pages, which is the nodes'.
    """
    while below := dict(tiers(address)):
        address = below[_TIER_OF[address.backend]]
    return address


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)

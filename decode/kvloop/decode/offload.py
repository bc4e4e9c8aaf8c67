"""Decode's asynchronous offload: each page to the shared cache as it fills, and holes mended."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from kvloop.decode.request import OwnedRequest
from kvloop.engine.page_writer import PageWriter
from kvloop.engine.parts import NodeParts

_CHECK_AFTER_S = 1.0
"""Prefill's own writes are given this long before a page they promised counts as missing."""
_LINGER_S = 10.0


@dataclass(slots=True)
class Chain:
    """One request's pages on their way out; the request's pages stay its own meanwhile."""

    owner: OwnedRequest
    next_page: int
    pending: deque[int] = field(default_factory=deque)
    """Indices of pages to write, in order."""
    doubtful: list[int] = field(default_factory=list)
    check: Future[list[bool]] | None = None
    closed_at: float | None = None

    @property
    def is_idle(self) -> bool:
        return not (self.pending or self.doubtful or self.check)


class Offload:
    """`turn` is called by the loop; it copies what fits and never waits."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._writer = PageWriter(parts, self._stored)
        self._chains: dict[str, Chain] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chain-check")

    @property
    def backlog(self) -> int:
        """Pages that are full and not yet stored or given up, doubtful ones included."""
        waiting = sum(len(c.pending) + len(c.doubtful) for c in self._chains.values())
        return waiting + self._writer.backlog

    def start(self, owner: OwnedRequest) -> None:
        """Follow a request whose prompt is here; `owner.storage` says where its pages are."""
        if owner.request.cache == "off":
            return
        chain = Chain(owner, next_page=owner.num_prompt // owner.page_size)
        chain.doubtful = [i for i, state in enumerate(owner.storage) if state != "stored"]
        self._chains[owner.request_id] = chain

    def page_filled(self, owner: OwnedRequest) -> None:
        """The request may have filled pages: queue those."""
        chain = self._chains.get(owner.request_id)
        if chain is not None:
            owner.grow_keys()
            chain.pending.extend(range(chain.next_page, len(owner.keys)))
            chain.next_page = max(chain.next_page, len(owner.keys))

    def close(self, owner: OwnedRequest) -> None:
        """The request has ended; its pages are released by `turn` when they are out."""
        chain = self._chains.get(owner.request_id)
        if chain is not None:
            chain.closed_at = time.monotonic()

    def holds(self, owner: OwnedRequest) -> bool:
        """Whether the offload still needs the request's pages."""
        return owner.request_id in self._chains

    def turn(self) -> list[OwnedRequest]:
        """Move on; returns ended requests whose pages are no longer needed here."""
        released = []
        for chain in list(self._chains.values()):
            self._check_doubtful(chain)
            self._write(chain)
            if chain.closed_at is not None and self._is_over(chain, chain.closed_at):
                del self._chains[chain.owner.request_id]
                released.append(chain.owner)
        return released

    def stop(self, timeout_s: float) -> None:
        """Store what is queued, within the deadline."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._writer.close(timeout_s)

    def _is_over(self, chain: Chain, closed_at: float) -> bool:
        if chain.is_idle:
            return True
        late = time.monotonic() - closed_at > _LINGER_S
        if late or not self._parts.store.is_attached:
            lost = len(chain.pending) + len(chain.doubtful)
            self._hole("deadline" if late else "detached", "false", lost)
            return True
        return False

    def _write(self, chain: Chain) -> None:
        if not chain.pending:
            return
        indices = list(chain.pending)
        keys = [chain.owner.keys[i] for i in indices]
        taken = self._writer.submit(keys, [chain.owner.pages[i] for i in indices])
        for _ in range(taken):
            chain.pending.popleft()

    def _check_doubtful(self, chain: Chain) -> None:
        if chain.check is not None:
            if chain.check.done():
                self._repair(chain, chain.check.result())
        elif chain.doubtful and self._is_time(chain):
            keys = [chain.owner.keys[i] for i in chain.doubtful]
            chain.check = self._thread.submit(self._parts.store.exists, keys)

    def _is_time(self, chain: Chain) -> bool:
        has_begun = (
            chain.pending or chain.next_page > chain.owner.num_prompt // chain.owner.page_size
        )
        old = time.monotonic() - chain.owner.handed_off_at > _CHECK_AFTER_S
        return bool(old and (has_begun or chain.closed_at is not None))

    def _repair(self, chain: Chain, present: list[bool]) -> None:
        missing = [i for i, is_there in zip(chain.doubtful, present, strict=True) if not is_there]
        for index in missing:
            state = chain.owner.storage[index]
            self._hole("failed" if state == "storing" else "policy", "true", 1)
        chain.pending.extendleft(reversed(missing))
        chain.doubtful, chain.check = [], None

    def _hole(self, reason: str, repaired: str, pages: int) -> None:
        if pages:
            self._parts.metrics.chain_holes.labels(reason, repaired).inc(pages)

    def _stored(self, key: bytes, is_stored: bool) -> None:
        if not is_stored:
            self._hole("failed", "false", 1)

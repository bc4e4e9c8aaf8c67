"""Decode's offload over real pages, slots and objects; copies, calls and time go on by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from deferred_mover import DeferredMover
from faulty_store import FaultyBackend, FaultyStore
from hicache_node import NAMESPACE, PAGE, SHAPE, content_of
from stepped_workers import SteppedWorkers

from kvloop.decode.admission import own
from kvloop.decode.offload import Extra, Offload
from kvloop.decode.offload.chain import Chain, Page
from kvloop.decode.request import OwnedRequest, Stage
from kvloop.decode.request_pages import RequestPages
from kvloop.engine.metrics import NodeMetrics
from kvloop.engine.node_config import NodeConfig
from kvloop.engine.parts import NodeParts
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import check
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.wire import GenerateRequest, Sampling, StorageState

SHORT_S = 0.1
"""For a call that hangs; where none does, a busy machine needs more."""
_GUARD = GuardConfig(
    deadline_s=10.0, num_threads=2, first_retry_s=0.005, max_retry_s=0.02, check_s=1000.0
)


class OffloadNode:
    """One decode node without its model; `flags` are NodeConfig's. Pages of two tokens."""

    def __init__(
        self,
        store: FaultyStore | None,
        *,
        num_pages: int = 24,
        num_slots: int = 12,
        call_s: float = _GUARD.deadline_s,
        **flags: Any,
    ) -> None:
        self.now = 100.0
        self.config = NodeConfig(
            role="decode",
            model="none",
            page_size=PAGE,
            max_total_tokens=num_pages * PAGE,
            **flags,
        )
        self.pool = HostPool(SHAPE, num_slots)
        self.mover = DeferredMover(num_pages, self.pool)
        self.guard = GuardedBackend(
            None,
            self.pool,
            name="faulty",
            namespace=NAMESPACE,
            config=replace(_GUARD, deadline_s=call_s),
        )
        self.store = PageStore(self.guard, self.pool, namespace=NAMESPACE, writer="decode")
        if store is not None:
            self.attach(store)
        self.metrics = NodeMetrics()
        self.pages = RequestPages(num_pages)
        with (
            patch("kvloop.decode.offload.writer.Workers", SteppedWorkers),
            patch("kvloop.decode.offload.offload.Workers", SteppedWorkers),
        ):
            self.offload = Offload(self._parts(), clock=lambda: self.now)
        self.writes = cast(SteppedWorkers, self.offload._writer._workers)
        self.looks = cast(SteppedWorkers, self.offload._looks)
        self.num_asked = 0
        self._watch_writer()

    # --- L3 -----------------------------------------------------------------------------------

    def attach(self, store: FaultyStore) -> None:
        """Put another store, or the same again, in the place of L3; waits until it serves."""
        self.guard.attach(lambda: FaultyBackend(store, self.pool), "faulty")
        assert store.error is not None or store.is_stalled or self.guard.wait_attached(20)

    def be_patient(self) -> None:
        """From the next `attach` on a call may take long."""
        self.guard._shared = replace(self.guard._shared, config=_GUARD)

    # --- requests -----------------------------------------------------------------------------

    def begin(
        self,
        prompt: Sequence[int],
        *,
        states: Sequence[StorageState] | StorageState = "stored",
        max_tokens: int = 20,
        **fields: Any,
    ) -> OwnedRequest | None:
        """A request whose prompt's KV is here, with its first token; None: too few pages."""
        self.num_asked += 1
        request = GenerateRequest(
            request_id=f"r{self.num_asked % 3}",  # names come again
            prompt=list(prompt),
            sampling=Sampling(max_tokens=max_tokens),
            namespace=NAMESPACE.hex(),
            **fields,
        )
        owner = own(request, PAGE)
        if not self.pages.reserve(owner):
            return None
        for index in range(owner.num_matched, owner.num_prompt_pages):
            self._compute(owner, index)
        num_full = owner.num_prompt // PAGE
        owner.storage = [states] * num_full if isinstance(states, str) else list(states)
        owner.stage, owner.handed_off_at = Stage.RUNNING, self.now
        self.pages.publish(owner)
        self.offload.start(owner)
        owner.output.append(7)
        return owner

    def generate(self, owner: OwnedRequest, tokens: Sequence[int]) -> None:
        """As the scheduler appends them, one step each."""
        for token in tokens:
            if len(owner.output) >= owner.request.sampling.max_tokens:
                return
            index = owner.num_kv // PAGE
            owner.output.append(token)
            self._compute(owner, index)
            if owner.num_kv % PAGE == 0:
                self.offload.page_filled(owner)

    def end(self, owner: OwnedRequest, extra: Extra | None = None) -> None:
        """However it ended."""
        owner.stage = Stage.ENDED
        self.pages.finish(owner)
        self.offload.close(owner, extra)
        if not self.offload.holds(owner):
            self.pages.release(owner)

    def serve(self, prompt: Sequence[int], num_answer: int, **fields: Any) -> OwnedRequest:
        """A whole request, with no turn of the loop meanwhile."""
        owner = self.begin(prompt, max_tokens=num_answer, **fields)
        assert owner is not None
        self.generate(owner, [8] * (num_answer - 1))
        self.end(owner)
        return owner

    def _compute(self, owner: OwnedRequest, index: int) -> None:
        """What the model does: KV of the tokens so far, in the page where the last of them lies."""
        owner.grow_keys()
        is_full = index < len(owner.keys)
        key = owner.keys[index] if is_full else f"{id(owner)} {index} {owner.num_kv}".encode()
        self.mover.write(owner.pages[index], content_of(key))

    # --- what goes on meanwhile -----------------------------------------------------------------

    def turn(self) -> None:
        for owner in self.offload.turn():
            self.pages.release(owner)

    def settle(self, rounds: int = 30, pause_s: float = 0.5) -> None:
        """All that copies, calls and time can do."""
        for _ in range(rounds):
            self.turn()
            self.mover.finish()
            while self.looks.step() or self.writes.step():
                pass
            self.now += pause_s

    def drain(self, timeout_s: float) -> None:
        """As at SIGTERM, copies and calls going on; naps make the time pass."""

        def nap(seconds: float) -> None:
            self.now += max(seconds, 0.01)
            self.mover.finish()
            while self.looks.step() or self.writes.step():
                pass

        with patch("kvloop.decode.offload.offload.time", SimpleNamespace(sleep=nap)):
            for owner in self.offload.drain(timeout_s):
                self.pages.release(owner)

    # --- what can be seen -----------------------------------------------------------------------

    def counted(self, name: str, **labels: str) -> int:
        return int(self.metrics.registry.get_sample_value(name, labels) or 0)

    def holes(self, reason: str, repaired: bool) -> int:
        label = "true" if repaired else "false"
        return self.counted("kvloop_chain_holes_total", reason=reason, repaired=label)

    def all_is_free(self) -> bool:
        """No slot and no page has an owner."""
        self.pages.cache.flush()
        cache = self.pages.cache
        return self.pool.num_free == self.pool.num_slots and cache.num_available == cache.num_pages

    def close(self) -> None:
        self.store.close(0.0)

    def _watch_writer(self) -> None:
        """Nothing is written behind a page that has been given up, and nothing of a wrong slot."""
        submit = self.offload._writer.submit

        def watched(pages: list[Page]) -> None:
            for page in pages:
                broken = page.chain.broken
                assert broken is None or page.index < broken.first, "written behind a hole"
                assert page.slot is not None
            submit(pages)

        self.offload._writer.submit = watched  # type: ignore[method-assign]

    def _parts(self) -> NodeParts:
        parts = SimpleNamespace(
            config=self.config,
            kv=SimpleNamespace(device=SimpleNamespace(type="deferred")),
            pool=self.pool,
            mover=self.mover,
            shape=SHAPE,
            store=self.store,
            metrics=self.metrics,
        )
        return cast(NodeParts, parts)


class Dues:
    """Counts pages that become due, or are given up while in doubt, of all chains."""

    def __init__(self) -> None:
        self.num = 0
        fill, miss, break_at = Chain.fill, Chain._miss, Chain.break_at

        def counted_fill(chain: Chain, indices: Sequence[int], now: float) -> int:
            self.num += len(indices)
            return fill(chain, indices, now)

        def counted_miss(chain: Chain, index: int, now: float) -> None:
            self.num += 1
            miss(chain, index, now)

        def counted_break(chain: Chain, index: int, cause: Any) -> tuple[list[Page], int]:
            pages, num_doubtful = break_at(chain, index, cause)
            self.num += num_doubtful
            return pages, num_doubtful

        self.patches = patch.multiple(
            Chain, fill=counted_fill, _miss=counted_miss, break_at=counted_break
        )


def is_right(store: FaultyStore, key: bytes) -> bool:
    """Whether the stored page is sealed, and is the one that its key names."""
    page = memoryview(bytearray(store.pages[key]))
    verdict = check(page, SHAPE, key, NAMESPACE, 0)
    content = bytes(page[: SHAPE.payload_bytes])
    return verdict.fault is None and content == content_of(key).tobytes()

"""Decode's asynchronous offload: each page to the shared cache as it fills, and holes mended.

The loop calls `turn` between two steps; nothing here waits. A page's way: docs/offload.md.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from itertools import islice

from kvloop.decode.offload.back_off import look_pause_s, retry_pause_s
from kvloop.decode.offload.chain import Cause, Chain, Extra, Page
from kvloop.decode.offload.counts import Counts
from kvloop.decode.offload.last_turn import LastTurn, LastTurns
from kvloop.decode.offload.policy import Storable
from kvloop.decode.offload.sharing import in_turns, newest, num_fresh, oldest
from kvloop.decode.offload.staging import Staging, background_backup
from kvloop.decode.offload.writer import BATCH, Writer
from kvloop.decode.request import OwnedRequest
from kvloop.engine.parts import NodeParts
from kvloop.shared_cache.wire import StorageState
from kvloop.shared_cache.workers import Workers

log = logging.getLogger("kvloop.decode")
_GRACE_S = 1.0
"""From the hand-off on: pages that prefill was storing then count as missing after that."""
_PATIENCE_S = 1.0
"""Who waits for device pages waits no longer than that for an L3 that is away."""
_NAP_S = 0.005


class Offload:
    """The loop thread's. The device pages of a request are read until `turn` has returned it."""

    def __init__(self, parts: NodeParts, clock: Callable[[], float] = time.monotonic) -> None:
        config = parts.config
        self._config, self._store, self._clock = config, parts.store, clock
        self._counts = Counts(parts.metrics, parts.shape.slot_bytes)
        self._staging = Staging(
            parts.pool,
            background_backup(parts.mover, parts.kv.device.type),
            config.offload_staging_pages or parts.pool.num_slots,
        )
        self._writer = Writer(parts.store)
        self._looks = Workers(1, "chain-look")
        self._dice = random.Random()
        self._chains: dict[int, Chain] = {}
        self._busy: dict[int, Chain] = {}
        """Those of them with anything to do; by the identity of their request, as a dead request's
        name may come again."""
        self._generation = parts.store.generation
        self._pressed_s: float | None = None
        self._last_turns = LastTurns()
        self._drained_at: float | None = None

    @property
    def backlog(self) -> int:
        """Pages that are due, or in doubt, and neither stored nor given up."""
        return sum(chain.num_open for chain in self._busy.values())

    # --- a request's life -----------------------------------------------------------------------

    def start(self, owner: OwnedRequest) -> None:
        """Follow a request whose prompt is here; `owner.storage` says where its pages are."""
        if owner.request.cache == "off":
            return
        num_full = owner.num_prompt // owner.page_size
        unsaid: list[StorageState] = ["will_not"] * num_full
        said = [*owner.storage[:num_full], *unsaid[len(owner.storage) :]]
        self._chains[id(owner)] = Chain(
            owner=owner,
            storable=Storable(owner.request, self._config.offload_policy),
            next_page=num_full,
            said=dict(enumerate(said)),
            unknown=list(range(num_full)),
        )

    def page_filled(self, owner: OwnedRequest) -> None:
        """The request may have filled pages: those that deserve it are due now."""
        chain = self._chains.get(id(owner))
        if chain is not None:
            owner.grow_keys()
            self._fill(chain, is_over=False)

    def close(self, owner: OwnedRequest, extra: Extra | None = None) -> None:
        """The request has ended, with all that it filled; `turn` returns it when its pages may go.

        `extra` is a page behind the full ones, such as the partial last one. `storable` says
        beforehand which tokens deserve it.
        """
        chain = self._chains.get(id(owner))
        if chain is None:
            if extra is not None:
                extra.done(False)
            return
        owner.grow_keys()
        now = chain.closed_at = self._clock()
        chain.has_begun = True
        self._busy[id(owner)] = chain
        self._fill(chain, is_over=True)
        self._forget_unworthy(chain)
        if extra is not None and not chain.add_extra(extra, now):
            extra.done(False)

    def storable(self, owner: OwnedRequest) -> int | None:
        """Of a request that has ended: how many of its tokens deserve storing; None: all.

        Nothing of a request that is not followed.
        """
        chain = self._chains.get(id(owner))
        return 0 if chain is None else chain.storable.limit(owner.output, is_over=True)

    def holds(self, owner: OwnedRequest) -> bool:
        """Whether the offload still needs the request's pages; `turn` returns it if so."""
        chain = self._chains.get(id(owner))
        return chain is not None and not chain.is_released

    def last_turn(self, keys: Sequence[bytes]) -> LastTurn | None:
        """The turn that this run continues, where it has ended and is not all stored yet."""
        return self._last_turns.find(self._busy.values(), keys)

    def is_soon(self, turn: LastTurn, wait_s: float) -> bool:
        """Whether pages of the turn are still due, and L3 takes pages within that time now."""
        return self._store.is_attached and self._last_turns.is_soon(turn, wait_s)

    def hurry(self, waited_s: float) -> None:
        """Somebody has waited so long for device pages, seen this turn.

        Prefill's writes are given no more time; and where L3 is away, or he may soon be refused,
        ended requests let go of what is not copied yet.
        """
        self._pressed_s = waited_s

    # --- the loop -------------------------------------------------------------------------------

    def turn(self) -> list[OwnedRequest]:
        """Move on; returns ended requests whose pages are no longer needed here."""
        self._notice_change()
        if not self._busy:
            self._pressed_s = None
            return []
        now = self._clock()
        self._land(now)
        self._collect(now)
        for chain in list(self._busy.values()):
            self._look(chain, now)
            self._expire(chain, now)
        self._make_way()
        self._pressed_s = None
        self._stage()
        self._write(now)
        return self._release()

    def drain(self, timeout_s: float) -> list[OwnedRequest]:
        """Store what is due, within the deadline; all requests have been closed.

        Returns the requests whose pages are no longer needed. What is left is given up.
        """
        self._drained_at = self._clock() + timeout_s
        released = self.turn()
        while self._chains and self._clock() < self._drained_at:
            time.sleep(_NAP_S)
            released += self.turn()
        left = self.backlog
        if left:
            log.warning("%d pages could not be stored before the node stopped", left)
        for chain in self._chains.values():
            self._give_up(chain, 0, self._late_cause())
        return released + self._release()

    def stop(self) -> None:
        """End the threads behind what they are doing."""
        self._staging.stop()
        self._writer.stop()
        self._looks.stop()

    def _notice_change(self) -> None:
        """Of another backend, or one that has lost its pages, nothing is known."""
        if self._store.generation == self._generation:
            return
        self._generation = self._store.generation
        for key, chain in self._chains.items():
            if not chain.is_released:
                chain.doubt()
                self._busy[key] = chain
                if chain.closed_at is not None:
                    self._forget_unworthy(chain)

    def _land(self, now: float) -> None:
        for copy in self._staging.landed():
            self._counts.copied(copy)
            for page in copy.pages:
                page.num_failed += not copy.is_whole
                self._return(page, now)

    def _collect(self, now: float) -> None:
        for written in self._writer.collect():
            for page, is_stored in zip(written.pages, written.results, strict=True):
                if is_stored:
                    self._stored(page, now)
                else:
                    page.num_failed += self._store.is_attached  # else it is not the page's fault
                    page.chain.retry_at = now + retry_pause_s(max(page.num_failed, 1), self._dice)
                    self._return(page, now)

    def _stored(self, page: Page, now: float) -> None:
        self._staging.free(page)
        page.chain.said[page.index] = "stored"
        self._last_turns.note(page, now)
        if page.extra is None:
            self._counts.stored(page.hole, max(now - page.due_at, 0.0))

    def _return(self, page: Page, now: float) -> None:
        """A page moves no more, and is not stored: to its place, or given up."""
        chain = page.chain
        if chain.is_lost(page):
            assert chain.broken is not None
            self._lose([page], 0, chain.broken.first, chain.broken.cause)
            return
        chain.put_back(page)
        if page.num_failed > self._config.offload_retries:
            self._last_turns.note(page, now)
            self._give_up(chain, page.index, page.hole or "failed")

    # --- what L3 has ----------------------------------------------------------------------------

    def _look(self, chain: Chain, now: float) -> None:
        """Ask for the prompt's pages at the first offload, and again for those still in doubt."""
        if chain.look is not None:
            if chain.look.done():
                self._learn(chain, now)
        elif chain.unknown and now >= chain.look_at and self._store.is_attached:
            num_worthy = self._num_worthy(chain, is_over=chain.closed_at is not None)
            chain.asked = [index for index in chain.unknown if index < num_worthy]
            keys = [chain.owner.keys[index] for index in chain.asked]
            if keys:
                chain.look = self._looks.submit(self._store.guard.exists, keys)

    def _learn(self, chain: Chain, now: float) -> None:
        assert chain.look is not None
        present = None if chain.look.exception() else chain.look.result()
        chain.look = None
        chain.num_looks += 1
        chain.look_at = now + look_pause_s(chain.num_looks)
        if present is not None:
            is_old = now - chain.owner.handed_off_at > _GRACE_S
            is_urgent = self._pressed_s is not None or self._drained_at is not None
            chain.learn(present, now, may_wait=not (is_old or is_urgent))

    def _forget_unworthy(self, chain: Chain) -> None:
        """Of an ended request: nobody will repeat these pages of its prompt."""
        num_worthy = self._num_worthy(chain, is_over=True)
        chain.unknown = [index for index in chain.unknown if index < num_worthy]

    def _num_worthy(self, chain: Chain, *, is_over: bool) -> int:
        """The first page that does not deserve storing, as far as is known."""
        owner = chain.owner
        limit = chain.storable.limit(owner.output, is_over=is_over)
        num_full = owner.num_kv // owner.page_size
        return num_full if limit is None else min(num_full, limit // owner.page_size)

    def _fill(self, chain: Chain, *, is_over: bool) -> None:
        num_full = len(chain.owner.keys)
        end = max(self._num_worthy(chain, is_over=is_over), chain.next_page)
        if end > chain.next_page:
            useless = chain.fill(range(chain.next_page, end), self._clock())
            chain.next_page = end
            self._busy[id(chain.owner)] = chain
            if useless:
                assert chain.broken is not None
                self._counts.given_up(chain.broken.cause, useless, useless)
        if is_over:
            self._counts.skipped(chain.storable.reason, max(num_full - end, 0))

    # --- giving up ------------------------------------------------------------------------------

    def _expire(self, chain: Chain, now: float) -> None:
        if chain.closed_at is None or not chain.num_open:
            return
        until = chain.closed_at + self._config.offload_deadline_s
        if self._drained_at is not None and self._store.is_attached:
            until = self._drained_at
        if now >= until or self._has_no_store:
            self._give_up(chain, 0, self._late_cause())

    def _make_way(self) -> None:
        """The cache must not cost a request its admission: the turn that ended first lets go."""
        patience_s = self._config.reserve_timeout_s / 2
        if not self._store.is_attached:
            patience_s = min(patience_s, _PATIENCE_S)
        if self._pressed_s is None or self._pressed_s <= patience_s:
            return
        holding = [chain for chain in self._busy.values() if chain.is_holding]
        if holding:
            chain = min(holding, key=lambda chain: chain.closed_at or 0.0)
            cause: Cause = "back_pressure" if self._store.is_attached else "detached"
            self._give_up(chain, chain.first_on_device, cause)

    def _late_cause(self) -> Cause:
        return "deadline" if self._store.is_attached else "detached"

    @property
    def _has_no_store(self) -> bool:
        """There is no L3, and never was one: it is not worth waiting for."""
        return self._generation == 0 and self._store.guard.state == "detached"

    def _give_up(self, chain: Chain, index: int, cause: Cause) -> None:
        pages, num_doubtful = chain.break_at(index, cause)
        self._lose(pages, num_doubtful, index, cause)

    def _lose(self, pages: Sequence[Page], num_doubtful: int, index: int, cause: Cause) -> None:
        num_lost = num_doubtful
        num_behind = num_doubtful
        for page in pages:
            if page.slot is not None:
                self._staging.free(page)
            if page.extra is not None:
                page.extra.done(False)
            else:
                num_lost += 1
                num_behind += page.index > index
        # At a deadline all pages are late, each for itself.
        is_break = cause not in ("deadline", "detached")
        self._counts.given_up(cause, num_lost, num_behind if is_break else 0)

    # --- out ------------------------------------------------------------------------------------

    def _stage(self) -> None:
        if self._store.guard.state == "detached":
            return  # nobody will take them: the requests' own pages keep them as well
        self._fill_slots()
        policy = self._config.offload_back_pressure
        if policy != "delay" and num_fresh(self._busy.values()):
            self._drop_newest() if policy == "drop_newest" else self._drop_oldest()

    def _fill_slots(self) -> None:
        room = self._staging.num_free
        if room <= 0:
            return
        queues = [list(islice(chain.waiting, room)) for chain in self._busy.values()]
        chosen = in_turns(queues, room)
        for page in chosen:
            page.chain.waiting.popleft()
        for page in reversed(self._staging.begin(chosen)):
            page.chain.waiting.appendleft(page)

    def _drop_newest(self) -> None:
        for page in newest(self._busy.values()):
            self._counts.dropped("drop_newest")
            self._give_up(page.chain, page.index, "back_pressure")

    def _drop_oldest(self) -> None:
        """Make room for pages that have just become full; while nothing may go they wait."""
        while num_fresh(self._busy.values()) > self._staging.num_free:
            victim = oldest(self._busy.values())
            if victim is None:
                break
            self._counts.dropped("drop_oldest")
            self._give_up(victim.chain, victim.index, "back_pressure")
        self._fill_slots()

    def _write(self, now: float) -> None:
        while self._writer.has_room and self._store.is_attached:
            batch = in_turns([chain.ready(now) for chain in self._busy.values()], BATCH)
            extras = [page for page in batch if page.extra is not None]
            batch = extras[:1] or batch
            if not batch:
                return
            for page in batch:
                page.chain.staged.remove(page)
                page.num_offers += 1
            self._counts.offered_again(sum(page.num_offers > 1 for page in batch))
            self._writer.submit(batch)

    def _release(self) -> list[OwnedRequest]:
        released = []
        for key, chain in list(self._busy.items()):
            if chain.closed_at is not None and not chain.is_released and not chain.needs_device:
                chain.is_released = True
                released.append(chain.owner)
            if chain.is_over:
                del self._chains[key]
            if chain.is_over or (chain.closed_at is None and not chain.num_open):
                del self._busy[key]
        return released

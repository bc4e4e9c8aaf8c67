"""HiCache: one tree drives device pages (L1), host slots (L2) and what is known of storage (L3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from kvloop.shared_cache.flights import Flight, begun, has_failed
from kvloop.shared_cache.hicache_names import WritePolicy
from kvloop.shared_cache.hicache_parts import (
    Fetched,
    FetchedTail,
    HiCacheConfig,
    LayerMove,
    Lease,
    Mover,
    Observer,
    PageSource,
    below,
)
from kvloop.shared_cache.host_tier import HostTier
from kvloop.shared_cache.page_allocator import PageAllocator
from kvloop.shared_cache.slot_owners import SlotOwners
from kvloop.shared_cache.storage_marks import StorageMarks
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import ABSENT, Tier
from kvloop.shared_cache.tree_parts import Leaving, Match, TierObserver


class HiCache:
    """Pure bookkeeping on one thread: bytes move through `mover`, and the caller talks to L3.

    A request leases its pages (`acquire`), publishes them when they are computed, and releases
    them. `poll` ends moves and must be called again and again. No page is used again while a lease,
    a move or a storage call still reads or writes it.
    """

    def __init__(
        self,
        num_device_pages: int,
        host: SlotOwners,
        mover: Mover,
        config: HiCacheConfig,
        observer: Observer | None = None,
        tiers: TierObserver | None = None,
    ) -> None:
        self.config = config
        self.tree = RadixTree(config.device_policy, config.host_policy, tiers)
        self.host = HostTier(host, self.tree, config)
        self.num_device_pages = num_device_pages
        self.write_policy: WritePolicy = config.write_policy
        self.marks = StorageMarks(self.tree, host, config.max_known_pages, self._note)
        """What is known of L3, and what is to be written there."""
        self._device = PageAllocator(num_device_pages)
        self._slots = host
        self._mover = mover
        self._observer = observer
        self._flights: list[Flight] = []
        self._leaving: list[tuple[list[LayerMove], list[int]]] = []

    # --- what is where ------------------------------------------------------------------------

    @property
    def num_available(self) -> int:
        """Device pages that a lease could get now."""
        return self._device.num_free + self.tree.num_evictable

    def num_found(self, keys: Sequence[bytes]) -> int:
        """How many leading pages L1 and L2 hold; leaves no trace."""
        found = self.tree.find(keys)
        return len(found.device) + len(found.host)

    def look_up(self, keys: Sequence[bytes]) -> int:
        """The same for a request that has just come: other pages go first until it has its own."""
        num_found = self.num_found(keys)
        self.tree.expect(keys[:num_found])
        return num_found

    # --- requests -----------------------------------------------------------------------------

    def acquire(
        self,
        keys: Sequence[bytes],
        *,
        num_pages: int,
        num_readable: int,
        fetched: Fetched | None = None,
        tail: FetchedTail | None = None,
        reads_tree: bool = True,
        owner: str = "",
        priority: int = 0,
    ) -> Lease | None:
        """Lease `num_pages` device pages, or None where too few can be freed.

        The leading ones hold what L1 has of `keys[:num_readable]`, and get what L2 has and what was
        fetched; the next one gets `tail`, if it is its. The slots of both have a new owner then.
        """
        self.poll()  # a backup that failed leaves no page to be found
        fetched = fetched or Fetched()
        readable = keys[:num_readable]
        found = self.tree.find(readable) if reads_tree else Match([], [])
        num_device = len(found.device)
        held = readable[:num_device]
        self.tree.lock(held)
        if num_pages - num_device > self.num_available:
            self.tree.unlock(held)
            return None
        slots, sources = below(found, fetched, num_readable)
        fits = tail is not None and tail.index == num_device + len(slots)
        given = [tail.slot] if tail is not None else []
        tail_slots = given if fits else []
        self._slots.retain(slots + tail_slots)
        self._slots.free([*fetched.slots, *given])
        if reads_tree:
            self.tree.match(readable, priority)
        on_device: list[PageSource] = ["device"] * num_device
        after = found.device[-1] if held else None
        fresh = self._reserve(num_pages - num_device, after, spare=keys)
        return Lease(
            keys=keys,
            pages=found.device + fresh,
            sources=on_device + sources,
            num_locked=num_device,
            own=fresh,
            tail=tail if fits else None,  # loaded first: all computing waits for it
            tail_load=self._load_back(fresh[len(slots) :][: len(tail_slots)], tail_slots),
            load=self._load_back(fresh[: len(slots)], slots),
            owner=owner,
            priority=priority,
        )

    def publish(self, lease: Lease) -> None:
        """All of the prompt's KV is in its pages: cache the full ones, and write them on."""
        full = len(lease.keys)
        left_over = self.tree.insert(
            Tier.DEVICE,
            lease.keys,
            lease.pages[:full],
            owner=lease.owner,
            priority=lease.priority,
        )
        self.tree.lock(lease.keys)
        self.tree.unlock(lease.keys[: lease.num_locked])
        lease.num_locked = full
        lease.own = left_over + lease.pages[full:]
        # A page that had to be computed was not found in L3, whatever is remembered of it.
        self.marks.not_found(lease.keys, len(lease.sources))
        self._write_through(lease)

    def release(self, lease: Lease) -> None:
        """The request needs its pages no more."""
        self.tree.unlock(lease.keys[: lease.num_locked])
        lease.num_locked = 0
        moves = [m for m in (lease.load, lease.tail_load) if m is not None and not m.is_done]
        if moves:
            self._leaving.append((moves, lease.own))
        else:
            self._device.free(lease.own)
        lease.own = []

    # --- prefetch -----------------------------------------------------------------------------

    def adopt(self, keys: Sequence[bytes], fetched: Fetched, owner: str = "") -> None:
        """Pages have come from L3: L2 and the tree have them too now."""
        run = keys[: fetched.end]
        self._slots.retain(fetched.slots)
        self._slots.free(self.tree.insert(Tier.HOST, run, fetched.slots, owner=owner))
        if fetched.generation == self.marks.generation:
            self.marks.found(run, fetched.first, fetched.writers)
        else:  # they are from an L3 that was another one
            self._offer(run)

    def give_back(self, fetched: Fetched) -> None:
        """The request that these pages were fetched for does not need them."""
        self._slots.free(fetched.slots)

    # --- upkeep -------------------------------------------------------------------------------

    @property
    def is_moving(self) -> bool:
        """Whether pages are being copied between the tiers, as far as `poll` has seen."""
        return bool(self._flights)

    def poll(self) -> None:
        """End the moves that are done."""
        flights, self._flights = self._flights, []
        for flight in flights:
            if flight.move.is_done:
                self._land(flight)
            else:
                self._flights.append(flight)
        leaving, self._leaving = self._leaving, []
        for moves, pages in leaving:
            if all(move.is_done for move in moves):
                self._device.free(pages)
            else:
                self._leaving.append((moves, pages))

    def flush(self) -> tuple[int, int]:
        """Drop all that is not in use from L1 and L2: pages freed, pages that stayed."""
        freed = self.tree.evict(Tier.DEVICE, self.num_device_pages)
        self._device.free(freed)
        slots = self.tree.evict(Tier.HOST, self._slots.num_slots)
        self._slots.free(slots)
        return len(freed) + len(slots), self.tree.num_pages(Tier.DEVICE)

    # --- device pages -------------------------------------------------------------------------

    def _reserve(self, n: int, after: int | None, spare: Sequence[bytes]) -> list[int]:
        missing = n - self._device.num_free
        if missing > 0:
            spill = partial(self._spill, spare) if self.write_policy == "write_back" else None
            self._device.free(self.tree.evict(Tier.DEVICE, missing, spill=spill))
        pages = self._device.alloc(n, after)
        assert pages is not None
        return pages

    def _load_back(self, pages: list[int], slots: list[int]) -> LayerMove | None:
        if not pages:
            return None
        move = begun(self._mover.load_back, pages, slots)
        self._flights.append(Flight(path="load_back", move=move, slots=slots))
        return move

    # --- host slots ---------------------------------------------------------------------------

    def _write_through(self, lease: Lease) -> None:
        """Copy to L2 what the policy wants there, and offer L3 what is in L2."""
        keys = lease.keys
        in_host = self.tree.values(Tier.HOST, keys)
        wanted = self._wanted(keys, in_host)
        room = self._slots.num_slots - (len(keys) - in_host.count(ABSENT))
        slots = self.host.take(min(len(wanted), room), lease.owner, spare=keys)
        self._note("backup", "no_slot", len(wanted) - len(slots))
        wanted = wanted[: len(slots)]
        flight = None
        if slots:
            on_device = self.tree.values(Tier.DEVICE, keys)
            flight = self._back_up([on_device[index] for index in wanted], slots)
            flight.keys, flight.indices, flight.is_locked = keys, wanted, True
            self._slots.free(self.tree.assign(Tier.HOST, keys, wanted, slots))
            self.tree.lock(keys)
        if flight is not None:
            flight.run = self.marks.run(keys, slots)
        else:
            self._offer(keys)
        self.poll()

    def _wanted(self, keys: Sequence[bytes], in_host: Sequence[int]) -> list[int]:
        """Which pages of a run that was used now are to be copied to L2."""
        if self.write_policy == "write_back":
            return []
        is_selective = self.write_policy == "write_through_selective"
        threshold = self.config.write_through_threshold if is_selective else 0
        uses = self.tree.uses(keys)
        return [i for i, slot in enumerate(in_host) if slot == ABSENT and uses[i] >= threshold]

    def _spill(self, spare: Sequence[bytes], left: list[Leaving]) -> None:
        """write_back: pages that left the device go to the host, as far as there is room."""
        for owner in dict.fromkeys(leaving.node.owner for leaving in left):
            mine = [self._not_in_host(leaving) for leaving in left if leaving.node.owner == owner]
            wanted = sum(len(leaving.indices) for leaving in mine)
            slots = self.host.take(wanted, owner, spare=spare)
            self._note("backup", "no_slot", wanted - len(slots))
            for leaving in reversed(mine):  # parents first: what is behind them needs them
                num = min(len(leaving.indices), len(slots))
                self._spill_node(leaving, slots[:num])
                slots = slots[num:]

    def _not_in_host(self, leaving: Leaving) -> Leaving:
        node, indices, values = leaving
        in_host = node.values[Tier.HOST]
        pairs = zip(indices, values, strict=True)
        away = sorted(pair for pair in pairs if in_host[pair[0]] == ABSENT)
        return Leaving(node, [index for index, _ in away], [value for _, value in away])

    def _spill_node(self, leaving: Leaving, slots: list[int]) -> None:
        """As many of its first pages as there are slots."""
        if not slots:
            return
        node, chosen = leaving.node, leaving.indices[: len(slots)]
        flight = self._back_up(leaving.values[: len(slots)], slots)
        flight.move.hold_device()
        for index, slot in zip(chosen, slots, strict=True):
            self.tree.put(node, Tier.HOST, index, slot)
        flight.keys = self.tree.keys_to(node)
        before = len(flight.keys) - len(node)
        flight.indices = [before + index for index in chosen]
        flight.run = self.marks.run(flight.keys, slots)

    def _back_up(self, pages: list[int], slots: list[int]) -> Flight:
        move = begun(self._mover.backup, pages, slots)
        generation = self.marks.generation
        flight = Flight(path="backup", move=move, slots=slots, generation=generation)
        self._slots.retain(slots)
        self.marks.arrive(slots)
        self._flights.append(flight)
        return flight

    def _land(self, flight: Flight) -> None:
        is_lost = has_failed(flight.move)
        result = "failed" if is_lost else "done"
        self._note(flight.path, result, len(flight.slots), flight.move.seconds or 0.0)
        if flight.is_locked:
            self.tree.unlock(flight.keys)
        if flight.path == "backup":
            self._end_backup(flight, is_lost)
        self._slots.free(flight.slots)

    def _end_backup(self, flight: Flight, is_lost: bool) -> None:
        self.marks.arrived(flight.slots)
        run, is_past = flight.run, flight.generation != self.marks.generation
        if run is not None and (is_lost or is_past):
            self.marks.stored(run, [False] * len(run.slots))
        elif run is not None:
            self.marks.offer(run)
        if is_lost:
            self._disown(flight)
        elif is_past:
            self._offer(flight.keys)

    def _offer(self, keys: Sequence[bytes]) -> None:
        run = self.marks.run(keys)
        if run is not None:
            self.marks.offer(run)

    def _disown(self, flight: Flight) -> None:
        """A backup failed: its slots hold no pages."""
        now = self.tree.values(Tier.HOST, flight.keys)
        pairs = zip(flight.indices, flight.slots, strict=True)
        mine = [(index, slot) for index, slot in pairs if now[index] == slot]
        indices = [index for index, _ in mine]
        self.tree.assign(Tier.HOST, flight.keys, indices, [ABSENT] * len(mine))
        self._slots.free([slot for _, slot in mine])

    def _note(self, path: str, result: str, pages: int, seconds: float = 0.0) -> None:
        if self._observer is not None and pages:
            self._observer.moved(path, result, pages, seconds)

"""What one node knows of L3: which pages are there, and which of L2's are to be written there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from kvloop.shared_cache.hicache_parts import HostRun
from kvloop.shared_cache.slot_owners import SlotOwners
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import ABSENT, Node, Tier
from kvloop.shared_cache.wire import Role, StorageState

_STORING = 0
_WRITERS: dict[Role, int] = {"prefill": 1, "decode": 2}
_MIN_STORING = 64


class StorageMarks:
    """The tree's STORAGE tier; `take_runs` says what to write, `stored` what became of it."""

    def __init__(
        self,
        tree: RadixTree,
        slots: SlotOwners,
        max_known_pages: int,
        note: Callable[[str, str, int], None],
    ) -> None:
        self.is_attached = False
        """Whether L3 takes pages now."""
        self.generation = 0
        """Of what is known about L3: grows with each `forget`."""
        self._tree, self._slots, self._note = tree, slots, note
        self._max_known = max_known_pages
        self._max_storing = max(slots.num_slots // 2, _MIN_STORING)
        self._num_storing = 0
        self._arriving: set[int] = set()
        self._runs: deque[HostRun] = deque()
        self._eligible: deque[Node] = deque()

    def states(self, keys: Sequence[bytes]) -> list[StorageState]:
        """What is known of each page's place in L3."""
        return [_state(value) for value in self._tree.values(Tier.STORAGE, keys)]

    # --- writing ------------------------------------------------------------------------------

    def arrive(self, slots: Sequence[int]) -> None:
        """These slots of the tree have no bytes yet: L3 must not get them."""
        self._arriving.update(slots)

    def arrived(self, slots: Sequence[int]) -> None:
        """They have now, or will never."""
        self._arriving.difference_update(slots)

    def run(self, keys: Sequence[bytes], own: Sequence[int] = ()) -> HostRun | None:
        """The pages of a run that are in L2, and neither in L3 nor on their way there.

        They are marked as on their way, and the run owns their slots. Of slots that are yet to be
        filled only `own` are taken: the caller offers the run once they are.
        """
        run, num_left = self._run(keys, own)
        self._note("write_through", "deferred", num_left)
        return run

    def offer(self, run: HostRun) -> None:
        """The run's pages are whole in their slots: it may be written."""
        self._runs.append(run)

    def offer_all(self) -> None:
        """Make all that is in L2 eligible to be written."""
        self._eligible = deque(self._tree.nodes(Tier.HOST))

    def take_runs(self, n: int) -> list[HostRun]:
        """Up to `n` runs to be written; each ends with `stored`."""
        while self._eligible and len(self._runs) < n and self._num_storing < self._max_storing:
            node = self._eligible.popleft()
            run, num_left = self._run(self._tree.keys_to(node)) if node.is_alive else (None, 0)
            if num_left:
                self._eligible.appendleft(node)
            if run is not None:
                self.offer(run)
        return [self._runs.popleft() for _ in range(min(n, len(self._runs)))]

    def stored(self, run: HostRun, results: Sequence[bool]) -> None:
        """What became of a run; its slots are given back."""
        self._num_storing -= len(run.slots)
        self._slots.free(run.slots)
        if run.generation == self.generation:
            values = [_WRITERS["prefill"] if is_stored else ABSENT for is_stored in results]
            self._tree.assign(Tier.STORAGE, run.keys, run.indices, values)
            self._bound()

    # --- learning -----------------------------------------------------------------------------

    def found(self, keys: Sequence[bytes], first: int, writers: Sequence[Role]) -> None:
        """Pages of a run, from `first` on, were read from L3."""
        values = [_WRITERS[writer] for writer in writers]
        self._tree.assign(Tier.STORAGE, keys, range(first, first + len(values)), values)
        self._bound()

    def not_found(self, keys: Sequence[bytes], first: int) -> None:
        """L3 did not have the pages of a run from `first` on."""
        known = self._tree.values(Tier.STORAGE, keys)
        gone = [index for index in range(first, len(known)) if known[index] > _STORING]
        self._tree.assign(Tier.STORAGE, keys, gone, [ABSENT] * len(gone))

    def forget(self) -> None:
        """L3 is another one, or has lost its pages; what is under way tells nothing of it."""
        self.generation += 1
        self._tree.forget_stored()

    def _run(self, keys: Sequence[bytes], own: Sequence[int] = ()) -> tuple[HostRun | None, int]:
        """With it the number of pages that there was no room for."""
        if not self.is_attached:
            return None, 0
        in_host = self._tree.values(Tier.HOST, keys)
        known = self._tree.values(Tier.STORAGE, keys)
        is_empty = self._arriving.difference(own)
        indices = [
            index
            for index, (slot, mark) in enumerate(zip(in_host, known, strict=True))
            if slot != ABSENT and mark == ABSENT and slot not in is_empty
        ]
        # A slow L3 must not keep all of L2: what is not taken now is offered later.
        room = max(self._max_storing - self._num_storing, 0)
        num_left = len(indices[room:])
        indices = indices[:room]
        if not indices:
            return None, num_left
        slots = [in_host[index] for index in indices]
        self._slots.retain(slots)
        self._num_storing += len(slots)
        self._tree.assign(Tier.STORAGE, keys, indices, [_STORING] * len(indices))
        run = HostRun(keys=keys, indices=indices, slots=slots, generation=self.generation)
        return run, num_left

    def _bound(self) -> None:
        over = self._tree.num_pages(Tier.STORAGE) - self._max_known
        if over > 0:
            self._tree.evict(Tier.STORAGE, over)


def _state(value: int) -> StorageState:
    if value == ABSENT:
        return "will_not"
    return "storing" if value == _STORING else "stored"

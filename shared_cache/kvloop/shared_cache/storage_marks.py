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
        self._tree, self._slots, self._note = tree, slots, note
        self._max_known = max_known_pages
        self._max_storing = max(slots.num_slots // 2, _MIN_STORING)
        self._num_storing = 0
        self._generation = 0
        self._runs: deque[HostRun] = deque()
        self._eligible: deque[Node] = deque()

    def states(self, keys: Sequence[bytes]) -> list[StorageState]:
        """What is known of each page's place in L3."""
        return [_state(value) for value in self._tree.values(Tier.STORAGE, keys)]

    # --- writing ------------------------------------------------------------------------------

    def run(self, keys: Sequence[bytes]) -> HostRun | None:
        """The pages of a run that are in L2, and neither in L3 nor on their way there.

        They are marked as on their way, and the run owns their slots.
        """
        if not self.is_attached:
            return None
        in_host = self._tree.values(Tier.HOST, keys)
        known = self._tree.values(Tier.STORAGE, keys)
        indices = [i for i in range(len(keys)) if in_host[i] != ABSENT and known[i] == ABSENT]
        # A slow L3 must not keep all of L2: what is not taken now is offered at its next use.
        room = max(self._max_storing - self._num_storing, 0)
        self._note("write_through", "deferred", len(indices[room:]))
        indices = indices[:room]
        if not indices:
            return None
        slots = [in_host[index] for index in indices]
        self._slots.retain(slots)
        self._num_storing += len(slots)
        self._tree.assign(Tier.STORAGE, keys, indices, [_STORING] * len(indices))
        return HostRun(keys=keys, indices=indices, slots=slots, generation=self._generation)

    def offer(self, run: HostRun) -> None:
        """The run's pages are whole in their slots: it may be written."""
        self._runs.append(run)

    def offer_all(self) -> None:
        """Make all that is in L2 eligible to be written."""
        self._eligible = deque(self._tree.nodes(Tier.HOST))

    def take_runs(self, n: int) -> list[HostRun]:
        """Up to `n` runs to be written; each ends with `stored`."""
        while self._eligible and len(self._runs) < n:
            node = self._eligible.popleft()
            run = self.run(self._tree.keys_to(node)) if node.is_alive else None
            if run is not None:
                self.offer(run)
        return [self._runs.popleft() for _ in range(min(n, len(self._runs)))]

    def stored(self, run: HostRun, results: Sequence[bool]) -> None:
        """What became of a run; its slots are given back."""
        self._num_storing -= len(run.slots)
        self._slots.free(run.slots)
        if run.generation == self._generation:
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
        self._generation += 1
        self._tree.forget_stored()

    def _bound(self) -> None:
        over = self._tree.num_pages(Tier.STORAGE) - self._max_known
        if over > 0:
            self._tree.evict(Tier.STORAGE, over)


def _state(value: int) -> StorageState:
    if value == ABSENT:
        return "will_not"
    return "storing" if value == _STORING else "stored"

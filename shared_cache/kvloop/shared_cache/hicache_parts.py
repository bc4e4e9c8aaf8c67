"""What HiCache is given, what it gives out, and through whom it moves pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kvloop.shared_cache.hicache_names import EvictionPolicy, WritePolicy
from kvloop.shared_cache.tree_parts import Match
from kvloop.shared_cache.wire import Role

PageSource = Literal["device", "host", "prefill", "decode"]
"""Where a reused page was found: L1, L2, or L3 by the role that wrote it there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HiCacheConfig:
    """Policies and limits; `NodeConfig` has the flags."""

    write_policy: WritePolicy = "write_through"
    write_through_threshold: int = 2
    """Uses of a page that make write_through_selective copy it."""
    device_policy: EvictionPolicy = "lru"
    host_policy: EvictionPolicy = "lru"
    prefetch_share: float = 0.5
    """Share of the host slots that pages on their way from L3 may hold."""
    tenant_quotas: Mapping[str, int] = field(default_factory=dict)
    """Tenant to host slots; `*` for every tenant that is not named."""
    max_known_pages: int = 1_000_000
    """Pages that are remembered as stored in L3."""


class Move(Protocol):
    """Pages on their way between the tiers of one node."""

    @property
    def is_done(self) -> bool:
        """Whether nothing more is read or written: all is there, or it failed."""

    @property
    def seconds(self) -> float | None:
        """How long it took; None until that is known."""

    def wait(self) -> None:
        """Return when all is there; raises where it failed."""

    def hold_device(self) -> None:
        """Whatever is done to the device's pages from now on comes after this move."""


class LayerMove(Move, Protocol):
    """Pages that arrive layer by layer."""

    def before_layer(self, layer: int) -> None:
        """The caller's work on this layer, from now on, comes after its pages are in."""

    def await_layer(self, layer: int) -> None:
        """Wait until this layer's pages are in."""


@dataclass(frozen=True, slots=True)
class FailedMove:
    """A move that could not begin; as `LayerMove`."""

    error: Exception

    @property
    def is_done(self) -> bool:
        return True

    @property
    def seconds(self) -> float | None:
        return None

    def wait(self) -> None:
        raise self.error

    def hold_device(self) -> None:
        """Nothing is under way."""

    def before_layer(self, layer: int) -> None:
        raise self.error

    def await_layer(self, layer: int) -> None:
        raise self.error


class Mover(Protocol):
    """Copies between device pages and host slots; neither call waits."""

    def backup(self, pages: Sequence[int], slots: Sequence[int]) -> Move: ...

    def load_back(self, pages: Sequence[int], slots: Sequence[int]) -> LayerMove: ...


class Observer(Protocol):
    """Counts what HiCache moved."""

    def moved(self, path: str, result: str, pages: int, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Pages that a prefetch brought for one request; it owns their slots until it is served."""

    first: int = 0
    """Index in the prompt of the first page."""
    slots: tuple[int, ...] = ()
    writers: tuple[Role, ...] = ()
    generation: int = 0
    """Of what was known about L3 when it was asked for them."""

    @property
    def end(self) -> int:
        return self.first + len(self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedTail:
    """A partial page that was read for one request; it owns the slot until it is served."""

    index: int
    """In the prompt, of the page that it is the beginning of."""
    num_tokens: int
    """Leading ones that need not be computed."""
    slot: int
    writer: Role


@dataclass(slots=True, kw_only=True)
class Lease:
    """One request's device pages, its own until `HiCache.release`."""

    keys: Sequence[bytes]
    """Of the prompt's full pages; none where no tier may be used."""
    pages: list[int]
    """All of the prompt's, the last one perhaps not full."""
    sources: list[PageSource]
    """Of the leading pages that need not be computed."""
    num_locked: int
    """Leading pages that the tree holds for this lease."""
    own: list[int]
    """Pages that go back to the pool with the lease."""
    load: LayerMove | None
    """Brings the pages that were found below the device."""
    owner: str
    priority: int
    tail: FetchedTail | None = None
    """What the page behind `sources` begins with; its slot is the move's."""
    tail_load: LayerMove | None = None
    """Brings it: all of that page is written, so nothing is computed there before it is done."""


@dataclass(slots=True, kw_only=True)
class HostRun:
    """Pages of a run to be written to L3 from their slots, which the run owns until `stored`."""

    keys: Sequence[bytes]
    indices: list[int]
    slots: list[int]
    generation: int
    """Of what was known about L3 when it began."""

    @property
    def page_keys(self) -> list[bytes]:
        """The key of each page to write."""
        return [self.keys[index] for index in self.indices]


def below(found: Match, fetched: Fetched, num_readable: int) -> tuple[list[int], list[PageSource]]:
    """Slots of the pages that follow the device's, without a hole, and where each came from.

    A page that was fetched for this very request counts as storage, though L2 has it by now.
    """
    slots: list[int] = []
    sources: list[PageSource] = []
    for index in range(len(found.device), num_readable):
        own, at = index - fetched.first, index - len(found.device)
        if 0 <= own < len(fetched.slots):
            slots.append(fetched.slots[own])
            sources.append(fetched.writers[own])
        elif at < len(found.host):
            slots.append(found.host[at])
            sources.append("host")
        else:
            break
    return slots, sources

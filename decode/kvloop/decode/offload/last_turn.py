"""A session's turn that has ended, and whose pages the next one would find in L3 a moment later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from kvloop.decode.offload.chain import Chain, Page


class LastTurn(NamedTuple):
    """A turn that has ended, and how many leading pages of it another request repeats."""

    chain: Chain
    num_pages: int

    @property
    def is_storing(self) -> bool:
        """Whether one of the pages is due."""
        chain = self.chain
        firsts = (*islice(chain.waiting, 1), *chain.staged[:1], *chain.moving)
        return any(page.extra is None and page.index < self.num_pages for page in firsts)


class LastTurns:
    """Finds them, and learns how long their pages take."""

    def __init__(self) -> None:
        self._lag_s = 0.0
        """From a request's end until its answer's last page was stored, or refused for good."""

    def find(self, chains: Iterable[Chain], keys: Sequence[bytes]) -> LastTurn | None:
        """The ended turn that this run continues the furthest; None: there is none."""
        turns = [LastTurn(chain, _num_repeated(chain, keys)) for chain in chains]
        longest = max(turns, key=lambda turn: turn.num_pages, default=None)
        return longest if longest is not None and longest.num_pages else None

    def note(self, page: Page, now: float) -> None:
        """A page is stored, or L3 refused it to the end."""
        ended_at = page.chain.closed_at
        if ended_at is not None and page.is_fresh:
            self._lag_s = now - ended_at

    def is_soon(self, turn: LastTurn, wait_s: float) -> bool:
        """Whether its pages are due, and L3 takes pages within that time now."""
        return self._lag_s <= wait_s and turn.is_storing


def _num_repeated(chain: Chain, keys: Sequence[bytes]) -> int:
    """Leading pages that both have, where they have the answer's first; else 0.

    Of a prompt alone prefill has all pages: it has computed them.
    """
    own = chain.owner.keys
    first = chain.owner.num_prompt // chain.owner.page_size
    if chain.closed_at is None or first >= min(len(keys), len(own)) or keys[first] != own[first]:
        return 0
    return sum(one == other for one, other in zip(keys, own, strict=False))

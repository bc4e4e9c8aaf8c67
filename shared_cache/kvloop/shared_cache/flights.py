"""Moves under way between HiCache's tiers, and how they begin and end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kvloop.shared_cache.hicache_parts import FailedMove, HostRun, Move

log = logging.getLogger(__name__)
Moving = TypeVar("Moving", bound=Move)


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """A move under way, and what must stay as it is until it has ended."""

    path: str
    move: Move
    slots: list[int]
    keys: Sequence[bytes] = ()
    indices: Sequence[int] = ()
    """A backup's pages."""
    is_locked: bool = False
    run: HostRun | None = None
    """To be written to L3 once the pages are in their slots."""
    generation: int = 0
    """Of what was known about L3 when it began."""


def begun(
    begin: Callable[[Sequence[int], Sequence[int]], Moving], pages: list[int], slots: list[int]
) -> Moving | FailedMove:
    """The move; one that cannot begin ends as one that failed does."""
    try:
        return begin(pages, slots)
    except Exception as error:
        return FailedMove(error)


def has_failed(move: Move) -> bool:
    """Of a move that is done; what went wrong is logged."""
    try:
        move.wait()
    except Exception:
        log.exception("pages could not be moved")
        return True
    return False

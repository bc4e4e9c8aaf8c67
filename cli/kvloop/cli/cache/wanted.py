"""What the flags of a command ask for; reading them loads nothing that opening a store takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvloop.shared_cache.store_tools.address import StoreAddress

if TYPE_CHECKING:
    from kvloop.shared_cache.page_object import PageShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the flags ask for."""

    address: StoreAddress
    namespace: str | None
    """First digits; None: all namespaces."""
    keys: Sequence[bytes] | None
    """Pages of that namespace; None: all."""
    shape: PageShape | None
    """Of namespaces that have no manifest."""
    deadline_s: float

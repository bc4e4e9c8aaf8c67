"""What a role's nodes had to do lately."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RoleName = Literal["prefill", "decode"]
_FEW = 3
ROLES: tuple[RoleName, ...] = ("prefill", "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleLoad:
    """Of all ready nodes of a role together, in the last window."""

    ready: int
    """Nodes that serve."""
    running: int = 0
    """Requests on them now."""
    waiting: int = 0
    """Requests that wait there now."""
    pool_share: float = 0.0
    """Share of the device pools' pages in use."""
    begun: float = 0.0
    """Requests that stopped waiting in the window."""
    wait_s: float = 0.0
    """Mean wait of these."""
    busy_share: float = 0.0
    """Share of the window that a node computed, on average."""
    window_s: float = 30.0

    @property
    def expected_wait_s(self) -> float:
        """Of a request that comes now: those before it, but for one that each node is about to
        take, at the rate of the window; some windows where nothing moved."""
        backlog = max(self.waiting - self.ready, 0)
        return backlog * self.window_s / max(self.begun, backlog / 4, 1.0)

    @property
    def longest_wait_s(self) -> float:
        """Whichever is more; the wait of one or two requests tells nothing of the next."""
        return max(self.wait_s if self.begun >= _FEW else 0.0, self.expected_wait_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """Of one cluster. What was not observed is left out, never taken for nothing."""

    roles: Mapping[RoleName, RoleLoad] = field(default_factory=dict)
    ttft_s: float | None = None
    """Median of the window; None: no request got a first token."""
    itl_s: float | None = None
    """Median between tokens."""

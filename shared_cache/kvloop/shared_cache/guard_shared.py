"""What the attachments of one guard have in common, one after the other."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.manifest import Manifest
from kvloop.shared_cache.session import RetiredSessions

GuardState = Literal["attached", "detached", "attaching", "draining", "open"]
CallFault = Literal["refused", "overloads", "stalls", "errors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardConfig:
    """How long to wait for a backend, and when to leave it alone."""

    deadline_s: float = 3.0
    """For one call, its time in the queue included."""
    num_threads: int = 4
    """Calls at once."""
    max_failures: int = 2
    """Failed calls in a row that open the breaker; one stalled call does so too."""
    first_retry_s: float = 0.5
    """From the opening to the first attempt to attach again; doubles with each that fails, and
    with each opening soon after an attempt that did not."""
    max_retry_s: float = 15.0
    check_s: float = 5.0
    """Between looks at an attached backend: is it there, and has it kept its content?"""
    max_stuck_calls: int = 16
    """With more calls of earlier connections still hanging, no new connection is opened."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class CallCounts:
    """Calls that brought nothing, by why; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, float] = dict.fromkeys(
            ("refused", "overloads", "stalls", "errors"), 0.0
        )

    def add(self, fault: CallFault) -> None:
        """Count one."""
        with self._lock:
            self._counts[fault] += 1

    def snapshot(self) -> dict[str, float]:
        """Totals since the start."""
        with self._lock:
            return dict(self._counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardShared:
    """Handed from attachment to attachment."""

    pool: HostPool
    """Whose slots the calls hold: the one that backends are opened over."""
    config: GuardConfig
    manifest: Manifest | None = None
    """Kept in every store that is attached, for tools; None: of no use to them."""
    change: threading.Condition = field(default_factory=threading.Condition)
    """Guards the states, and is notified when one changes."""
    retired: RetiredSessions = field(default_factory=RetiredSessions)
    counts: CallCounts = field(default_factory=CallCounts)

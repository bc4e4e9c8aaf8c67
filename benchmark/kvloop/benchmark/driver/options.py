"""How a load is driven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kvloop.shared_cache.errors import ConfigError

Arrival = Literal["poisson", "uniform"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveOptions:
    """Fields are the command's flags."""

    clients: int | None = None
    """Conversations held at once; None: all of a segment."""
    max_in_flight: int | None = None
    """Requests at the server at once; None: no limit."""
    warmup: int = 1
    """Requests before the measured ones, of words of their own, not counted."""
    timeout_s: float = 600.0
    """Longest time for one whole answer."""
    stall_timeout_s: float = 120.0
    """Longest silence before the first byte of an answer and inside it."""
    arrival: Arrival = "poisson"
    """How first turns are spread where a segment has a rate."""
    seed: int = 0
    """Draws the arrivals."""
    time_scale: float = 1.0
    """Divides think times, and the times at which turns are due: 2 is twice as fast."""
    retry_429: int = 0
    """How often a refused request is sent again after its Retry-After; the wait is queueing."""
    max_retry_after_s: float = 30.0
    """Longest such wait; a longer Retry-After counts as this."""
    give_up_after: int = 10
    """Lost or silent requests in a row, over all clients, after which the server is probed."""
    probe_s: float = 10.0
    """How long a probed server has to answer anything at all; then the run is cut short."""
    pause_s: float = 0.0
    """Between two segments."""

    def describe(self) -> dict[str, Any]:
        """What makes it another load if it changes; plain JSON values."""
        names = ("clients", "max_in_flight", "arrival", "time_scale")
        return {name: getattr(self, name) for name in names}

    def __post_init__(self) -> None:
        for name in ("clients", "max_in_flight", "timeout_s", "stall_timeout_s", "time_scale"):
            if getattr(self, name) is not None:
                _require(name, getattr(self, name) > 0, "above 0", getattr(self, name))
        for name in ("max_retry_after_s", "give_up_after", "probe_s"):
            _require(name, getattr(self, name) > 0, "above 0", getattr(self, name))
        for name in ("warmup", "retry_429", "pause_s"):
            _require(name, getattr(self, name) >= 0, "0 or above", getattr(self, name))
        _require(
            "arrival", self.arrival in ("poisson", "uniform"), "poisson or uniform", self.arrival
        )


def _require(name: str, is_right: bool, right: str, value: object) -> None:
    if not is_right:
        raise ConfigError(f"--{name.replace('_', '-')} must be {right}, got {value}")

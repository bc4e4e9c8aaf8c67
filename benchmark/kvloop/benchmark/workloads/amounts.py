"""Numbers of a load that are either fixed or drawn anew each time."""

from __future__ import annotations

from random import Random

from kvloop.shared_cache.errors import ConfigError

Amount = int | tuple[int, int]
"""Always this many, or drawn evenly from LOW to HIGH, both of them possible."""
Seconds = float | tuple[float, float]
"""The mean of exponential times, or times drawn evenly from LOW to HIGH; 0: none."""


def fewest(amount: Amount) -> int:
    """The least that can be drawn."""
    return amount if isinstance(amount, int) else amount[0]


def check_number(flag: str, value: int, least: int = 1) -> None:
    """Raises ConfigError naming the flag."""
    if value < least:
        raise ConfigError(f"{flag} must be {least} or above, got {value}")


def check_amount(flag: str, amount: Amount) -> None:
    """Raises ConfigError naming the flag."""
    low, high = (amount, amount) if isinstance(amount, int) else amount
    if not 1 <= low <= high:
        raise ConfigError(
            f"{flag} must be a number above 0, or LOW:HIGH with 1 <= LOW <= HIGH, "
            f"got {_shown(amount)}"
        )


def check_seconds(flag: str, seconds: Seconds) -> None:
    """Raises ConfigError naming the flag."""
    low, high = seconds if isinstance(seconds, tuple) else (seconds, seconds)
    if not 0 <= low <= high < float("inf"):
        raise ConfigError(
            f"{flag} must be seconds of 0 or above, or LOW:HIGH with 0 <= LOW <= HIGH, "
            f"got {_shown(seconds)}"
        )


def draw_amount(amount: Amount, draw: Random) -> int:
    """One of the amount's numbers."""
    return amount if isinstance(amount, int) else draw.randint(*amount)


def draw_seconds(seconds: Seconds, draw: Random) -> float:
    """One time."""
    if isinstance(seconds, tuple):
        return draw.uniform(*seconds)
    return draw.expovariate(1 / seconds) if seconds else 0.0


def _shown(value: Amount | Seconds) -> str:
    return ":".join(map(str, value)) if isinstance(value, tuple) else str(value)

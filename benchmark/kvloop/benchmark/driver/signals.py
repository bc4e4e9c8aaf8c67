"""The first SIGINT or SIGTERM ends a load early, so that what was measured is still reported."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def first_signal(then: Callable[[str], None]) -> Iterator[None]:
    """Call `then` with the signal's name; a second one does what it did before."""
    loop = asyncio.get_running_loop()
    before = {each: signal.getsignal(each) for each in _SIGNALS}

    def restore() -> None:
        for each, handler in before.items():
            loop.remove_signal_handler(each)
            signal.signal(each, handler)

    def take(name: str) -> None:
        restore()
        then(name)

    try:
        for each in _SIGNALS:
            loop.add_signal_handler(each, take, each.name)
    except (ValueError, RuntimeError, NotImplementedError):
        # Not the main thread: signals are somebody else's.
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            restore()

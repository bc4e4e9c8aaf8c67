"""The event loop that a benchmark runs on."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed: it costs less for each piece of a stream."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on that loop, with as many open files as this process may have."""
    allow_open_files()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


def allow_open_files(most: int = 65_536) -> None:
    """Each stream is one: a common soft limit of 1,024 is raised as far as the hard one lets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with contextlib.suppress(ValueError, OSError):  # some systems refuse what they name as limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

"""Streams and events of torch, with types, and waits that end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kvloop.shared_cache.errors import TransferError

_DEADLINE_S = 60.0
_SHORTEST_NAP_S = 20e-6
_LONGEST_NAP_S = 1e-3


def new_stream(device: torch.device, priority: int = 0) -> torch.cuda.Stream:
    """A stream that does not wait for the default one; lower priorities go first."""
    return torch.cuda.Stream(device, priority=priority)  # type: ignore[no-untyped-call]


def new_event(*, has_time: bool = False) -> torch.cuda.Event:
    """An event; whoever waits for it before it is recorded does not wait."""
    return torch.cuda.Event(enable_timing=has_time)  # type: ignore[no-untyped-call]


def mark(stream: torch.cuda.Stream, *, has_time: bool = False) -> torch.cuda.Event:
    """An event after all that the stream was given so far."""
    event = new_event(has_time=has_time)
    event.record(stream)
    return event


@contextmanager
def changing_streams(device: torch.device) -> Iterator[None]:
    """What `torch.cuda.set_stream` does inside ends here; it takes a tenth of a `with stream`."""
    before = torch.cuda.current_stream(device)
    try:
        yield
    finally:
        torch.cuda.set_stream(before)


def has_happened(event: torch.cuda.Event) -> bool:
    """Never blocks; raises TransferError where the device failed."""
    try:
        return bool(event.query())  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise TransferError(f"moving KV pages failed: {error}") from error


def await_event(event: torch.cuda.Event) -> None:
    """Return when it has happened; TransferError where it does not, or the device failed."""
    deadline, nap = time.monotonic() + _DEADLINE_S, _SHORTEST_NAP_S
    while not has_happened(event):
        if time.monotonic() > deadline:
            raise TransferError(f"KV pages are still on their way after {_DEADLINE_S:.0f} s")
        time.sleep(nap)
        nap = min(2 * nap, _LONGEST_NAP_S)

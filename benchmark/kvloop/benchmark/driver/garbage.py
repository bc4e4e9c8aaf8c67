"""Keeps Python's collector from stopping a run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def old_objects_frozen() -> Iterator[None]:
    """What is there now is not looked at again before the end.

    Looking through the objects of all imported modules takes tens of milliseconds, in which no
    token's time is taken; those of a run are few.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

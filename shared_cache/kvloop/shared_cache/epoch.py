"""A record that goes when a store loses its content: so its clients learn of it."""

from __future__ import annotations

import secrets
from concurrent.futures import wait

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.session import Session
from kvloop.shared_cache.storage_errors import StorageUnavailable

_NAME = "epoch"


def read_epoch(session: Session, deadline_s: float) -> bytes | None:
    """The store's epoch, begun now where it has none; None where it could not be learnt.

    Raises what the backend raises, and StorageUnavailable where it stalls.
    """
    future = session.submit(_epoch)
    if future is None:
        return None
    if not wait([future], deadline_s).done:
        if session.cancel(future):
            return None
        if not future.done():
            raise StorageUnavailable(f"a look at the store took longer than {deadline_s} s")
    return future.result()


def _epoch(backend: StorageBackend) -> bytes | None:
    epoch = backend.get_small(_NAME)
    if epoch is None and backend.put_small(_NAME, secrets.token_bytes(8)):
        # Read back: where two nodes begin one, the last put is both nodes' epoch.
        epoch = backend.get_small(_NAME)
    return epoch

"""The extra config of `zones`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from kvloop.shared_cache.backends.chain.config import InnerBackend, Seconds


class ZonesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Each node of a site has the same."""

    zone: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    """The site's name: its nodes, and no others, share the outboxes in `local`."""
    local: InnerBackend
    """The site's store: read first, and written at once."""
    central: InnerBackend
    """The store across the link: read for the rest, and written in the background."""
    keep: bool = True
    """Write to `local`, in the background, what had to be read from `central`."""
    keep_queue_pages: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 64
    """Pages that wait for that; they hold slots of the host pool, at most a quarter of it."""
    outbox_pages: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)] = 65536
    """Pages of this node that wait for the link; further ones stay local, and are counted."""
    staging_pages: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 16
    """Pages of memory, beside the host pool, that they are sent through."""
    lease_s: Seconds = 30.0
    """A node that is silent for that long is dead: another one of its site sends what it left."""
    local_deadline_s: Seconds = 1.0
    """For one call to `local`; this and the next together within the node's own deadline of 3 s."""
    central_deadline_s: Seconds = 1.9

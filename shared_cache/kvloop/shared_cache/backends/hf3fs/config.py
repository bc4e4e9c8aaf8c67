"""The extra config of `hf3fs`; the names of rings and time-outs are SGLang's."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from kvloop.shared_cache.backends.hf3fs.ring import RingSettings
from kvloop.shared_cache.errors import ConfigError


class Hf3fsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the pages lie on 3FS, and how they get there."""

    mount: Annotated[str, msgspec.Meta(min_length=1)]
    """Where 3FS is mounted, such as /3fs/cluster."""
    directory: Annotated[str, msgspec.Meta(min_length=1)] = "kvloop"
    """The store's directory under the mount; made where it is missing."""
    require_mount: bool = True
    """Refuse to serve while `mount` is no mount of 3FS's: else pages would fill the local disk."""
    io: Literal["auto", "usrbio", "posix"] = "auto"
    """How bytes move; auto: by USRBIO where its library is installed."""
    entries: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 8
    """Objects in flight in one ring."""
    numjobs: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """Rings for reading, and as many for writing; with POSIX the objects in flight."""
    client_timeout: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 5.0
    """Seconds in which a ring must complete something, else it is given up."""
    iov_bytes: Annotated[int, msgspec.Meta(ge=4096)] | None = None
    """Shared memory of all rings together; None: `entries` objects a ring."""
    numa_node: Annotated[int, msgspec.Meta(ge=0, le=1023)] | None = None
    """Where the shared memory of the rings lies; None: anywhere."""
    num_threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 16
    """Metadata calls (look up, create, link) at once."""


def ring_settings(config: Hf3fsConfig, mount: str, object_bytes: int) -> RingSettings:
    """What each ring gets; ConfigError where `iov_bytes` holds no object for each."""
    num_pieces = config.entries
    if config.iov_bytes is not None:
        num_pieces = min(num_pieces, config.iov_bytes // (2 * config.numjobs * object_bytes))
    if num_pieces == 0:
        raise ConfigError(
            f"storage backend 'hf3fs': iov_bytes={config.iov_bytes} must hold one object of "
            f"{object_bytes} bytes for each of {2 * config.numjobs} rings (numjobs for reading, "
            f"numjobs for writing): at least {2 * config.numjobs * object_bytes}"
        )
    return RingSettings(
        mount=mount,
        num_pieces=num_pieces,
        timeout_s=config.client_timeout,
        numa_node=config.numa_node,
    )

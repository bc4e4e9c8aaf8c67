"""Backends within a backend: how they are named, checked and prepared; shared with `zones`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

import msgspec

from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.host_pool import HostPool

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class InnerBackend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the backends that another is made of."""

    backend: str
    """The factory's name; `dynamic`, and a `chain` again, are fine."""
    config: dict[str, Any] = {}
    """Its extra config."""


class ChainConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The extra config of `chain`."""

    near: InnerBackend
    """Asked first: fast, and of this node or machine."""
    far: InnerBackend
    """Asked for the rest: the store that all nodes share."""
    promote: bool = True
    """Write to `near`, in the background, what had to be read from `far`."""
    promote_queue_pages: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 64
    """Pages that wait to be promoted; they hold their slots of the host pool, and so never more
    than a quarter of it is waited for. Further ones are not promoted."""
    near_deadline_s: Seconds = 1.0
    """For one call to `near`; this and the next together within the node's own deadline of 3 s."""
    far_deadline_s: Seconds = 1.9


def prepare_inner(
    outer: str,
    field: str,
    inner: InnerBackend,
    pool: HostPool,
    namespace: bytes,
    modules: Collection[str],
) -> BackendOpener:
    """Check an inner backend's configuration; ConfigError names the field that it is in."""
    try:
        return backend_opener(inner.backend, inner.config, pool, namespace, modules)
    except ConfigError as error:
        raise ConfigError(f"storage backend {outer!r}: {field}: {error}") from None


def refuse_twins(outer: str, **inner: InnerBackend) -> None:
    """Two names for one store are a mistake: nothing would be gained."""
    if len({msgspec.json.encode(one, order="deterministic") for one in inner.values()}) == 1:
        names = " and ".join(inner)
        raise ConfigError(f"storage backend {outer!r}: {names} are the same store; use two")

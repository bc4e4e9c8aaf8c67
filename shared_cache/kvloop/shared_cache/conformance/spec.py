"""Which backend is put to the test: all that it takes to open it, in this process or in others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.host_pool import HostPool

Capability = Literal[
    "can_share", "can_delete", "can_keep_records", "can_retake_at_once", "can_tell_misfits"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """A backend as the factory opens it, and what this kind of store honestly cannot do.

    What is said to be impossible is not tested, and shows as skipped by name.
    """

    name: str
    """The factory's: `dynamic` for a class of one's own."""
    extra_config: Mapping[str, Any] = field(default_factory=dict)
    """Only what JSON can hold: other processes are told of it."""
    dynamic_modules: tuple[str, ...] = ()
    can_share: bool = True
    """What one opening stores is seen by other processes."""
    can_delete: bool = True
    """`delete` and `clear` remove."""
    can_keep_records: bool = True
    """`put_small` and `get_small` work."""
    can_list: bool | None = None
    """`objects` works; None: either is right."""
    can_retake_at_once: bool = True
    """What a writer left half-written when it was killed can be written again at once."""
    can_tell_misfits: bool = True
    """An object of another length is counted, in `stats` or as a fault, when its page is asked for;
    False where lengths are kept apart, or the store's interface does not tell."""
    call_deadline_s: float = 30.0
    """A call that takes longer fails its test."""

    def open(self, pool: HostPool, namespace: bytes) -> StorageBackend:
        """Open it over the pool; raises what the factory and the backend raise."""
        return backend_opener(self.name, self.extra_config, pool, namespace, self.dynamic_modules)()


def without(spec: BackendSpec, lacking: Collection[str]) -> BackendSpec:
    """The spec with these capabilities off; raises ValueError for one that there is not."""
    known = [name for name in BackendSpec.__slots__ if name.startswith("can_")]
    for name in lacking:
        if name not in known:
            raise ValueError(f"{name!r} is no capability; known: {', '.join(known)}")
    off: dict[str, Any] = dict.fromkeys(lacking, False)
    return replace(spec, **off)

"""Which store a tool works on, and the stores that it is made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a command line is read without what only opening a store takes
    from kvloop.shared_cache.backend import BackendOpener
    from kvloop.shared_cache.host_pool import HostPool

_TIERS = {"chain": ("near", "far"), "zones": ("local", "central")}
_PLACES = {
    "file": ("root",),
    "mooncake": ("master_server_address",),
    "hf3fs": ("mount",),
    "nixl": ("root", "server", "bucket"),
    "aibrix": ("root",),
}
_IN_THE_MOUNT = "kvloop"  # of hf3fs, where its config names no directory


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """A storage backend and its extra config."""

    backend: str
    config: Mapping[str, Any] = field(default_factory=dict)
    dynamic_modules: tuple[str, ...] = ()
    """That a `dynamic` backend may be loaded from."""

    @property
    def label(self) -> str:
        """For people; shows no secret."""
        each = (self.config.get(name) for name in _PLACES.get(self.backend, ()))
        place = next((place for place in each if isinstance(place, str)), None)
        return self.backend if place is None else f"{self.backend}:{place}"

    @property
    def folder(self) -> str | None:
        """The directory that it lies in, which its backend would make; None: it lies in none."""
        match self.backend:
            case "file" | "nixl" | "aibrix":
                parts = [self.config.get("root")]
            case "hf3fs":
                parts = [self.config.get("mount"), self.config.get("directory", _IN_THE_MOUNT)]
            case _:
                return None
        named = [part for part in parts if isinstance(part, str)]
        return os.path.join(*named) if named and len(named) == len(parts) else None

    def opener(self, pool: HostPool, namespace: bytes) -> BackendOpener:
        """Check the config (ConfigError) and return what opens the store, as the factory does."""
        from kvloop.shared_cache.factory import backend_opener

        return backend_opener(self.backend, self.config, pool, namespace, self.dynamic_modules)


def tiers(address: StoreAddress) -> list[tuple[str, StoreAddress]]:
    """The stores below one that is made of several, the nearest first, by name; else none.

    What is written wrongly there is left to the backend, whose errors say what is wrong.
    """
    inner = [(name, address.config.get(name)) for name in _TIERS.get(address.backend, ())]
    if not all(isinstance(entry, Mapping) and "backend" in entry for _, entry in inner):
        return []
    return [(name, _inner(address, entry)) for name, entry in inner if entry is not None]


def leaves(address: StoreAddress, name: str = "") -> list[tuple[str, StoreAddress]]:
    """The stores that hold the pages, the nearest first; names such as `near` or `far.local`.

    A store that is not made of others is its own only leaf, and has no name.
    """
    below = tiers(address)
    if not below:
        return [(name, address)]
    return [leaf for inner, store in below for leaf in leaves(store, f"{name}.{inner}".lstrip("."))]


def _inner(address: StoreAddress, entry: Mapping[str, Any]) -> StoreAddress:
    return StoreAddress(
        backend=str(entry["backend"]),
        config=entry.get("config") or {},
        dynamic_modules=address.dynamic_modules,
    )

"""A look at a store: its namespaces, what they hold, and what their pages look like."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.manifest import RECORD, Manifest, decode_manifest
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.store_tools.address import StoreAddress
from kvloop.shared_cache.store_tools.listing import Listing, listings
from kvloop.shared_cache.store_tools.open_store import OpenStore

_NOBODY = bytes(32)
_SMALL = PageShape(num_layers=1, page_size=1, num_kv_heads=1, head_size=1, itemsize=1)


@dataclass(slots=True, kw_only=True)
class Survey:
    """One store that is made of no others."""

    tier: str
    """Its name within the store that it is part of; empty: it is none."""
    address: StoreAddress
    namespaces: dict[bytes, Listing] = field(default_factory=dict)
    stats: dict[str, float] = field(default_factory=dict)


def look(tier: str, address: StoreAddress, deadline_s: float) -> Survey:
    """List the store; nothing is made where there is none.

    Raises StorageUnsupported where it cannot list, and what else `OpenStore` does.
    """
    with OpenStore(address, HostPool(_SMALL, 1), _NOBODY, deadline_s) as store:
        namespaces = listings(store.objects())
        return Survey(tier=tier, address=address, namespaces=namespaces, stats=store.stats())


def read_manifest(address: StoreAddress, namespace: bytes, deadline_s: float) -> Manifest | None:
    """The manifest that the store has of the namespace."""
    with OpenStore(address, HostPool(_SMALL, 1), namespace, deadline_s) as store:
        record = store.get_small(RECORD)
    return decode_manifest(record, namespace) if record is not None else None


def clear_namespace(address: StoreAddress, namespace: bytes, deadline_s: float) -> None:
    """Remove all of a namespace in a store that cannot list it."""
    with OpenStore(address, HostPool(_SMALL, 1), namespace, deadline_s) as store:
        store.clear()

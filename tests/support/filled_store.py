"""Fills a real store with pages as nodes write them, manifest included, for tests of tools."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from kvloop.shared_cache.factory import open_backend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.manifest import Manifest, keep_manifest
from kvloop.shared_cache.page_object import PageShape, seal

SHAPE = PageShape(num_layers=2, page_size=4, num_kv_heads=2, head_size=8, itemsize=2, head_groups=2)
_BATCH = 64


def keys_of(namespace: bytes, num_pages: int) -> list[bytes]:
    """The keys that `fill` gives its pages."""
    return [hashlib.sha256(namespace + i.to_bytes(4, "little")).digest() for i in range(num_pages)]


def fill(
    backend: str,
    config: Mapping[str, Any],
    namespace: bytes,
    num_pages: int,
    shape: PageShape = SHAPE,
) -> list[bytes]:
    """Write pages of drawn bytes, each third by decode; returns their keys."""
    pool, keys = HostPool(shape, _BATCH), keys_of(namespace, num_pages)
    pool.array[:] = np.random.default_rng(0).integers(0, 256, pool.array.shape, np.uint8)
    store = open_backend(backend, config, pool, namespace)
    keep_manifest(store, Manifest(namespace=namespace.hex(), shape=shape, model="tiny"))
    for start in range(0, num_pages, _BATCH):
        batch = keys[start : start + _BATCH]
        for slot, key in enumerate(batch):
            for group in range(shape.head_groups):
                view = pool.group_view(slot, group)
                seal(view, shape, key, namespace, group, "prefill" if slot % 3 else "decode")
        assert all(store.set(batch, range(len(batch))))
    store.close()
    return keys

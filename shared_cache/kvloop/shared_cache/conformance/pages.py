"""Pages to write and to find again: their content follows from key and version alone."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

from kvloop.shared_cache.page_object import PageShape, seal

SMALL = PageShape(
    num_layers=3, page_size=16, num_kv_heads=4, head_size=16, itemsize=2, head_groups=2
)
"""8 KiB an object, two objects a page."""
SHAPES = {
    "one group": PageShape(num_layers=2, page_size=16, num_kv_heads=2, head_size=32, itemsize=2),
    "four groups": PageShape(
        num_layers=1, page_size=64, num_kv_heads=8, head_size=64, itemsize=2, head_groups=4
    ),
    "codec": PageShape(
        num_layers=4,
        page_size=16,
        num_kv_heads=4,
        head_size=24,
        itemsize=2,
        head_groups=2,
        codec="int8",
    ),
    "one token a page": PageShape(
        num_layers=2, page_size=1, num_kv_heads=1, head_size=8, itemsize=2
    ),
    "1 MiB": PageShape(num_layers=8, page_size=64, num_kv_heads=8, head_size=64, itemsize=2),
}
LARGE = PageShape(
    num_layers=4, page_size=64, num_kv_heads=8, head_size=64, itemsize=2, head_groups=2
)
"""264 KiB an object, two objects a page: long enough to be caught in mid-write."""


def numbered_keys(seed: str, n: int) -> list[bytes]:
    """The same keys in every process."""
    return [hashlib.sha256(f"{seed} {i}".encode()).digest() for i in range(n)]


@lru_cache(maxsize=512)
def page_image(shape: PageShape, namespace: bytes, key: bytes, version: int = 0) -> bytes:
    """A sealed page, all groups: `shape.slot_bytes` long."""
    seed = np.frombuffer(key + bytes([version]), np.uint8)
    page = bytearray(np.random.default_rng(seed).bytes(shape.slot_bytes))
    for group in range(shape.head_groups):
        seal(object_view(shape, memoryview(page), group), shape, key, namespace, group, "prefill")
    return bytes(page)


def object_view(shape: PageShape, page: memoryview, group: int) -> memoryview:
    """The object of one group in a page's bytes."""
    return page[group * shape.object_bytes : (group + 1) * shape.object_bytes]

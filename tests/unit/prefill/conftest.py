"""A faulty store and a prefill node over it; a file that needs others has its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faulty_store import FaultyStore
from hicache_node import HiCacheNode


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def node(store: FaultyStore) -> Iterator[HiCacheNode]:
    node = HiCacheNode(store)
    yield node
    node.close()

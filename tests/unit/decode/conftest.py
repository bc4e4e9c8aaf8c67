"""A faulty store, and decode nodes over it that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from faulty_store import FaultyStore
from offload_node import OffloadNode
from offload_steps import MakeNode


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def node_of(store: FaultyStore) -> Iterator[MakeNode]:
    nodes: list[OffloadNode] = []

    def make(**flags: Any) -> OffloadNode:
        nodes.append(OffloadNode(store, **flags))
        return nodes[-1]

    yield make
    store.heal()
    for node in nodes:
        node.close()

"""Small models on one thread; a faulty store, and decode nodes over it that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from decode_chats import one_thread
from decode_engine import save_config
from faulty_store import FaultyStore
from offload_node import OffloadNode
from offload_steps import MakeNode


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save_config(tmp_path)


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

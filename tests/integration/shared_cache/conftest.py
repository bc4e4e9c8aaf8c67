"""A Mooncake store, and SGLang's storages over files, that end with the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mooncake_store import MooncakeStore
from sglang_wheel import create_storage, extra_config, storage_config


@pytest.fixture(scope="session")
def mooncake_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MooncakeStore]:
    store = MooncakeStore(tmp_path_factory.mktemp("mooncake") / "store.log")
    yield store
    store.stop()


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    storages: list[Any] = []
    yield storages
    for storage in storages:
        storage.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "l3"


@pytest.fixture
def attach(root: Path, opened: list[Any]) -> Callable[..., Any]:
    """Loads the plug-in over a file store; changes are HiCacheStorageConfig's fields."""

    def create(pool: Any, fields: dict[str, Any] | None = None, **changes: Any) -> Any:
        config = extra_config("file", {"root": str(root)}) | (fields or {})
        opened.append(create_storage(storage_config(config, **changes), pool))
        return opened[-1]

    return create

from collections.abc import Iterator

import pytest
from mooncake_store import MooncakeStore


@pytest.fixture(scope="session")
def mooncake_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MooncakeStore]:
    store = MooncakeStore(tmp_path_factory.mktemp("mooncake") / "store.log")
    yield store
    store.stop()

"""The backend `aibrix` does all that a backend must do, over both of AIBrix's stores that store."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvloop.shared_cache.conformance import BackendConformance, BackendSpec

pytestmark = pytest.mark.integration
pytest.importorskip("aibrix_kvcache", reason="see docs/backends/aibrix.md")


class TestSharedFileSystem(BackendConformance):
    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        config = {"l2_cache_backend": "SHFS", "root": str(tmp_path / "l3")}
        return BackendSpec(
            name="aibrix",
            extra_config=config,
            can_list=True,
            can_tell_misfits=False,  # each length has a folder of its own
        )


@pytest.mark.slow  # see test_aibrix_stores
class TestRocksDB(BackendConformance):
    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        config = {"l2_cache_backend": "ROCKSDB", "root": str(tmp_path / "l3")}
        return BackendSpec(
            name="aibrix",
            extra_config=config,
            can_share=False,  # RocksDB is a database of one process
            can_list=True,
            can_tell_misfits=False,  # each length has a folder of its own
        )

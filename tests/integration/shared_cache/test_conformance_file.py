"""The conformance suite on the file backend, on the file system that the tests run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvloop.shared_cache.conformance import BackendConformance, BackendSpec
from kvloop.shared_cache.conformance.capacity_suite import Bounded

pytestmark = pytest.mark.integration


class TestFile(BackendConformance):
    """Bounded only where the suite asks for it."""

    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        return BackendSpec(name="file", extra_config={"root": str(tmp_path / "l3")}, can_list=True)

    @pytest.fixture
    def bounded(self, tmp_path: Path) -> Bounded:
        root = str(tmp_path / "bounded")
        return lambda num_bytes: BackendSpec(
            name="file", extra_config={"root": root, "capacity_bytes": num_bytes}, can_list=True
        )

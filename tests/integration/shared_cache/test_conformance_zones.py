"""An edge site's files and a central store do together all that a backend must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mooncake_store import MooncakeStore

from kvloop.shared_cache.conformance import BackendConformance, BackendSpec

pytestmark = pytest.mark.integration


def zones_config(root: Path, central: dict[str, Any]) -> dict[str, Any]:
    local = {"backend": "file", "config": {"root": str(root / "edge")}}
    return {"zone": "edge-a", "local": local, "central": central}


class TestFilesAndFiles(BackendConformance):
    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        central = {"backend": "file", "config": {"root": str(tmp_path / "central")}}
        return BackendSpec(name="zones", extra_config=zones_config(tmp_path, central))


@pytest.mark.slow  # the same code as with files; Mooncake's own is in test_conformance_mooncake
class TestFilesAndMooncake(BackendConformance):
    @pytest.fixture
    def spec(self, tmp_path: Path, mooncake_store: MooncakeStore) -> BackendSpec:
        mooncake = dict(mooncake_store.config)
        central = {"backend": "mooncake", "config": mooncake}
        return BackendSpec(name="zones", extra_config=zones_config(tmp_path, central))

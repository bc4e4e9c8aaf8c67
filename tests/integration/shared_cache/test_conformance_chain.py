"""Files before another store do together all that a backend must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mooncake_store import MooncakeStore

from kvloop.shared_cache.conformance import BackendConformance, BackendSpec

pytestmark = pytest.mark.integration


def chain_spec(near: dict[str, Any], far: dict[str, Any], **fields: Any) -> BackendSpec:
    return BackendSpec(name="chain", extra_config={"near": near, "far": far, **fields})


def files(root: Path) -> dict[str, Any]:
    return {"backend": "file", "config": {"root": str(root)}}


class TestFilesOverFiles(BackendConformance):
    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        return chain_spec(files(tmp_path / "near"), files(tmp_path / "far"))


@pytest.mark.slow  # the same code as over files; Mooncake's own is in test_conformance_mooncake
class TestFilesOverMooncake(BackendConformance):
    @pytest.fixture
    def spec(self, tmp_path: Path, mooncake_store: MooncakeStore) -> BackendSpec:
        mooncake = dict(mooncake_store.config)
        far = {"backend": "mooncake", "config": mooncake}
        # The master drops what a killed writer had begun only after its time-out of 30 s.
        spec = chain_spec(files(tmp_path / "near"), far)
        return BackendSpec(name=spec.name, extra_config=spec.extra_config, can_retake_at_once=False)


@pytest.mark.slow
class TestChainInAChain(BackendConformance):
    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        inner = chain_spec(files(tmp_path / "middle"), files(tmp_path / "far"))
        far = {"backend": "chain", "config": dict(inner.extra_config)}
        return chain_spec(files(tmp_path / "near"), far, near_deadline_s=2.0, far_deadline_s=3.0)

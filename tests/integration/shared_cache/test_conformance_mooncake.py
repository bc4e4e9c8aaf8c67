"""The backend `mooncake` does all that a backend must do, on a real master and store."""

from __future__ import annotations

import pytest
from mooncake_store import MooncakeStore

from kvloop.shared_cache.conformance import BackendConformance, BackendSpec

pytestmark = pytest.mark.integration


class TestMooncake(BackendConformance):
    @pytest.fixture
    def spec(self, mooncake_store: MooncakeStore) -> BackendSpec:
        return BackendSpec(
            name="mooncake",
            extra_config={"master_server_address": mooncake_store.address},
            # The master drops what a killed writer had begun only after its time-out of 30 s.
            can_retake_at_once=False,
        )

"""The suite itself is sound: the plainest backend that keeps the contract passes all of it."""

from __future__ import annotations

import secrets

import pytest
from reference_store import STORES, reference_spec

from kvloop.shared_cache.conformance import BackendConformance, BackendSpec
from kvloop.shared_cache.conformance.capacity_suite import Bounded

pytestmark = pytest.mark.integration


class TestMemory(BackendConformance):
    @pytest.fixture
    def spec(self) -> BackendSpec:
        STORES.clear()
        return reference_spec("conformance")

    @pytest.fixture
    def bounded(self) -> Bounded | None:
        return lambda num_bytes: reference_spec(secrets.token_hex(4), num_bytes=num_bytes)

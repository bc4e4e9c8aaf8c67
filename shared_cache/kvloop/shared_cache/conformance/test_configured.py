"""The suite on the backend that the environment names: see `environment`."""

from __future__ import annotations

import os

import pytest

from kvloop.shared_cache.conformance.capacity_suite import Bounded
from kvloop.shared_cache.conformance.environment import (
    bounded_from_environment,
    spec_from_environment,
)
from kvloop.shared_cache.conformance.spec import BackendSpec
from kvloop.shared_cache.conformance.suite import BackendConformance


class TestConfigured(BackendConformance):
    """Skipped where no backend is named."""

    @pytest.fixture
    def spec(self) -> BackendSpec:
        spec = spec_from_environment(os.environ)
        if spec is None:
            pytest.skip("KVLOOP_CONFORMANCE_BACKEND names no backend")
        return spec

    @pytest.fixture
    def bounded(self, spec: BackendSpec) -> Bounded | None:
        if bounded_from_environment(spec, os.environ, 1) is None:
            return None

        def bounded_to(num_bytes: int) -> BackendSpec:
            bounded = bounded_from_environment(spec, os.environ, num_bytes)
            assert bounded is not None
            return bounded

        return bounded_to

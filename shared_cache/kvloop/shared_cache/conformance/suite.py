"""The whole suite: subclass it in a test module, and say which backend by the fixture `spec`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvloop.shared_cache.conformance.capacity_suite import Bounded, CapacitySuite
from kvloop.shared_cache.conformance.content_suite import ContentSuite
from kvloop.shared_cache.conformance.crash_suite import CrashSuite
from kvloop.shared_cache.conformance.damage_suite import DamageSuite
from kvloop.shared_cache.conformance.fault_suite import FaultSuite
from kvloop.shared_cache.conformance.namespace_suite import NamespaceSuite
from kvloop.shared_cache.conformance.place import Place
from kvloop.shared_cache.conformance.race_suite import RaceSuite
from kvloop.shared_cache.conformance.record_suite import RecordSuite
from kvloop.shared_cache.conformance.resource_suite import ResourceSuite
from kvloop.shared_cache.conformance.spec import BackendSpec


class BackendConformance(  # pytest runs them from the last to the first
    ResourceSuite,
    CapacitySuite,
    FaultSuite,
    DamageSuite,
    CrashSuite,
    RaceSuite,
    NamespaceSuite,
    RecordSuite,
    ContentSuite,
):
    """One test for each thing that a backend must do; each has a namespace of its own."""

    @pytest.fixture
    def spec(self) -> BackendSpec:
        """The backend under test. To be overridden; may use other fixtures."""
        raise NotImplementedError("override the fixture `spec` with your backend's")

    @pytest.fixture
    def bounded(self) -> Bounded | None:
        """From a bound in bytes to the spec of an empty store with that bound. To be overridden.

        Without one the tests of capacity are skipped.
        """
        return None

    @pytest.fixture
    def place(self, spec: BackendSpec) -> Iterator[Place]:
        """A namespace in the store, and slots; cleared and closed at the end."""
        place = Place(spec)
        yield place
        place.close()

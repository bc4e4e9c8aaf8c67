"""The backend `mooncake` does all that a backend must do, on a real master and store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mooncake_store import MooncakeStore

from kvloop.shared_cache.conformance import BackendConformance, BackendSpec
from kvloop.shared_cache.conformance.place import Place

pytestmark = pytest.mark.integration


class TestMooncake(BackendConformance):
    @pytest.fixture
    def spec(self, mooncake_store: MooncakeStore) -> BackendSpec:
        return BackendSpec(
            name="mooncake",
            extra_config=mooncake_store.config,
            # The master drops what a killed writer had begun only after its time-out of 30 s.
            can_retake_at_once=False,
            can_list=True,
        )

    @pytest.fixture
    def bounded(self, tmp_path: Path) -> Iterator[Callable[[int], BackendSpec]]:
        stores: list[MooncakeStore] = []

        def start(num_bytes: int) -> BackendSpec:
            # A page that was read is leased, and not evicted before its lease ends.
            flags = ("--master-flag", "default_kv_lease_ttl=100ms")
            log = tmp_path / f"bounded-{len(stores)}.log"
            stores.append(MooncakeStore(log, num_bytes, False, *flags))
            return BackendSpec(name="mooncake", extra_config=stores[-1].config)

        yield start
        for store in stores:
            store.kill()

    @pytest.mark.slow  # each opening takes half a second; see test_mooncake_memory
    def test_openings_leak_no_descriptors_threads_or_memory(self, place: Place) -> None:
        super().test_openings_leak_no_descriptors_threads_or_memory(place)

"""Tenants and their quotas, on a real master that keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from mooncake_pages import SHAPE, client
from mooncake_store import MooncakeStore, running

from kvloop.shared_cache.storage_errors import StorageRejected, StorageUnsupported

pytestmark = pytest.mark.integration

_QUOTA_PAGES = 12
_QUOTAS_GIB = {
    "small": _QUOTA_PAGES * SHAPE.object_bytes / 2**30,
    "large": 0.05,
    "default": 0.01,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MooncakeStore]:
    log = tmp_path_factory.mktemp("tenants") / "store.log"
    flags = ("--tenant-quotas", json.dumps(_QUOTAS_GIB))
    with running(MooncakeStore(log, 128 << 20, False, *flags)) as store:
        yield store


def test_a_tenant_never_has_more_than_its_quota(store: MooncakeStore) -> None:
    with client(store.config, tenant_id="small") as small:
        keys = small.put(2 * _QUOTA_PAGES)
        assert 0 < sum(small.backend.exists(keys)) <= _QUOTA_PAGES
        small.backend.clear()


def test_a_tenant_at_its_quota_costs_no_other_a_page(store: MooncakeStore) -> None:
    with (
        client(store.config, tenant_id="large") as large,
        client(store.config, tenant_id="small") as small,
    ):
        keys = large.put(20)
        small.put(2 * _QUOTA_PAGES)
        assert large.readable(keys) == keys
        small.backend.clear()
        large.backend.clear()


def test_a_quota_that_is_used_up_by_pages_in_use_is_a_want_of_room(store: MooncakeStore) -> None:
    with client(store.config, tenant_id="small", with_hard_pin=True) as small:
        assert len(small.put(2 * _QUOTA_PAGES)) <= _QUOTA_PAGES
        assert small.backend.stats()["no_room"] >= _QUOTA_PAGES
        small.backend.clear()


def test_the_same_key_of_two_tenants_is_two_pages(store: MooncakeStore) -> None:
    with (
        client(store.config, tenant_id="large") as large,
        client(store.config, tenant_id="small") as small,
    ):
        [key] = large.put(1)
        assert small.backend.exists([key]) == [False]
        small.backend.clear()
        assert large.read(key)
        large.backend.clear()


def test_a_tenant_that_the_master_does_not_know_is_refused_with_its_name(
    store: MooncakeStore,
) -> None:
    with (
        client(store.config, tenant_id="stranger") as stranger,
        pytest.raises(StorageRejected, match="the master does not know this tenant_id"),
    ):
        stranger.put(1)


def test_what_a_tenant_has_cannot_be_listed_and_says_so(store: MooncakeStore) -> None:
    with (
        client(store.config, tenant_id="large") as large,
        pytest.raises(StorageUnsupported, match="not tenant_id 'large'"),
    ):
        list(large.backend.objects())


def test_the_default_tenant_has_a_quota_too_and_is_listed(store: MooncakeStore) -> None:
    with client(store.config) as plain:
        [key] = plain.put(1)
        assert [stored.key for stored in plain.backend.objects()] == [key]
        plain.backend.clear()


def test_the_quotas_outlive_a_masters_restart(tmp_path: Path) -> None:
    flags = ("--tenant-quotas", json.dumps(_QUOTAS_GIB))
    with running(MooncakeStore(tmp_path / "store.log", 64 << 20, True, *flags)) as store:
        store.kill_master()
        store.wait_for_line("the master runs again")
        with (
            client(store.config, tenant_id="stranger") as stranger,
            pytest.raises(StorageRejected, match="does not know"),
        ):
            stranger.put(1)
        assert store.stop() == 0

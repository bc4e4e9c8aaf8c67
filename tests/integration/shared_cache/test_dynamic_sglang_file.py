"""SGLang's own HiCacheFile as a dynamic backend: what its ways mean for pages."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sglang_wheel import needs_sglang

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore

pytestmark = [pytest.mark.integration, needs_sglang]
SHAPE = PageShape(
    num_layers=3, page_size=16, num_kv_heads=4, head_size=16, itemsize=2, head_groups=2
)
NAMESPACE = secrets.token_bytes(32)
MODULE = "dynamic_backends.sglang_file"


def opener(pool: HostPool, folder: Path, interface_v1: int = 0) -> Any:
    fields = {"backend_name": "file", "module_path": MODULE, "class_name": "HiCacheFile"}
    config = {**fields, "interface_v1": interface_v1, "file_storage_path": str(folder)}
    return backend_opener("dynamic", config, pool, NAMESPACE, [MODULE])


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[PageStore]:
    pool = HostPool(SHAPE, 8)
    for slot in pool.alloc(8) or []:
        pool.view(slot)[:] = os.urandom(SHAPE.slot_bytes)
    guard = GuardedBackend(opener(pool, tmp_path / "l3"), pool, name="dynamic", namespace=NAMESPACE)
    assert guard.wait_attached(30)
    pages = PageStore(guard, pool, namespace=NAMESPACE, writer="decode")
    yield pages
    assert pages.close()


def files_of(folder: Path, key: bytes) -> list[Path]:
    return sorted((folder / "l3").glob(f"*-{key.hex()}-*.bin"))


def test_its_epoch_is_known_though_it_keeps_the_first_value_of_a_key(pages: PageStore) -> None:
    assert pages.epoch is not None
    assert pages.guard.put_small("record", b"one") and pages.guard.get_small("record") == b"one"
    assert not pages.guard.put_small("record", b"two")


@pytest.mark.parametrize("damage", ["truncated", "bit-flipped", "removed"])
def test_a_damaged_file_costs_that_page_alone(
    pages: PageStore, tmp_path: Path, damage: str
) -> None:
    keys = [secrets.token_bytes(32) for _ in range(3)]
    assert pages.save(keys, [0, 1, 2]) == [True] * 3
    path, _ = files_of(tmp_path, keys[1])
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "truncated" else data)
    assert pages.load(keys, [4, 5, 6]) == ["decode", None, "decode"]
    counts = pages.counters.snapshot().pages
    assert counts["prefetch", "fault" if damage == "bit-flipped" else "miss"] == 1
    failed = pages.status()["stats"]["failed_objects"]
    assert failed == (1 if damage == "truncated" else 0)


def test_the_stubs_of_its_base_are_no_batch_v1_methods(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lacks batch_get_v1, batch_set_v1$"):
        opener(HostPool(SHAPE, 2), tmp_path, interface_v1=1)

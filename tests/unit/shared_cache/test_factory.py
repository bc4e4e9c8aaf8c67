from pathlib import Path
from typing import Any

import pytest

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener, open_backend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.storage_errors import StorageUnavailable

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=1, head_size=8, itemsize=2)
NAMESPACE = b"n" * 32


@pytest.fixture
def pool() -> HostPool:
    return HostPool(SHAPE, 2)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("tape", {}, "unknown storage backend 'tape'; known: aibrix, chain, dynamic, file"),
        ("file", {}, "'file': extra config lacks the field 'root'"),
        ("file", {"root": "/x", "rot": 1}, "unknown field 'rot'; known: root, num_threads"),
        ("file", {"root": 7}, "Expected `str`, got `int` - at `$.root`"),
        ("file", {"root": ""}, "length >= 1 - at `$.root`"),
        ("file", {"root": "/x", "num_threads": 0}, ">= 1 - at `$.num_threads`"),
        ("mooncake", {}, "lacks the field 'master_server_address'"),
        ("mooncake", {"master_server_address": "nope"}, "$.master_server_address"),
        (
            "mooncake",
            {"master_server_address": "a:1", "protocol": "smoke"},
            "Invalid enum value 'smoke' - at `$.protocol`",
        ),
    ],
)
def test_a_wrong_configuration_names_what_is_wrong(
    name: str, config: dict[str, Any], message: str, pool: HostPool
) -> None:
    with pytest.raises(ConfigError) as caught:
        backend_opener(name, config, pool, NAMESPACE)
    assert message in str(caught.value)


def test_a_configuration_is_checked_without_touching_the_store(
    pool: HostPool, tmp_path: Path
) -> None:
    backend_opener("file", {"root": str(tmp_path / "later")}, pool, NAMESPACE)
    assert not (tmp_path / "later").exists()


def test_settings_of_prefetch_are_none_of_the_backends(pool: HostPool, tmp_path: Path) -> None:
    config = {"root": str(tmp_path), "prefetch_threshold": 256}
    open_backend("file", config, pool, NAMESPACE).close()
    with pytest.raises(ConfigError, match="prefetch_threshold must be a whole number"):
        backend_opener("file", {**config, "prefetch_threshold": "x"}, pool, NAMESPACE)


def test_a_root_that_cannot_be_made_is_a_storage_error(pool: HostPool, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(StorageUnavailable, match="storage backend 'file'"):
        open_backend("file", {"root": str(tmp_path / "plain")}, pool, NAMESPACE)


def test_a_master_that_is_not_there_is_a_storage_error(pool: HostPool) -> None:
    config = {"master_server_address": "127.0.0.1:9"}
    with pytest.raises(StorageUnavailable, match="no master at 127"):
        open_backend("mooncake", config, pool, NAMESPACE)

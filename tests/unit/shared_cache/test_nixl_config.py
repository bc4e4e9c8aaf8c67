"""The extra config of `nixl`: each field does what it says, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvloop.cli.main import main
from kvloop.shared_cache.backend_config import parse_backend_config
from kvloop.shared_cache.backends.nixl.config import (
    FileConfig,
    MemoryConfig,
    ObjectConfig,
    config_type,
    params_of,
)
from kvloop.shared_cache.backends.nixl.file_store import file_settings
from kvloop.shared_cache.backends.nixl.server import MemoryServerConfig
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.redact import Redactor

OBJECTS: dict[str, Any] = {
    "plugin": "OBJ",
    "bucket": "pages",
    "endpoint_override": "http://127.0.0.1:9000",
    "access_key": "AKIAEXAMPLE",
    "secret_key": "not-to-be-shown",
}


def parse(**fields: Any) -> FileConfig | ObjectConfig | MemoryConfig:
    return parse_backend_config("nixl", fields, config_type(fields))


@pytest.mark.parametrize("plugin", ["POSIX", "GDS", "GDS_MT", "HF3FS"])
def test_file_plugins_keep_pages_under_a_root(plugin: str) -> None:
    config = parse(plugin=plugin, root="/mnt/l3", plugin_params={"use_uring": True, "n": 3})
    assert isinstance(config, FileConfig)
    assert params_of(config) == {"use_uring": "true", "n": "3"}
    assert file_settings(config).root == Path("/mnt/l3")


def test_each_field_of_files_reaches_the_store() -> None:
    config = parse(
        plugin="GDS", root="/mnt/l3", mount_point="/mnt", capacity_bytes=7, files_at_once=5
    )
    assert isinstance(config, FileConfig)
    settings = file_settings(config)
    assert settings.mount_point == Path("/mnt")
    assert (settings.capacity_bytes, settings.files_at_once) == (7, 5)


def test_objects_give_the_plugin_its_bucket_endpoint_and_credentials() -> None:
    config = parse(
        **OBJECTS,
        region="eu-north-1",
        use_virtual_addressing=True,
        session_token="temporary",
        plugin_params={"crtMinLimit": 1 << 24},
    )
    assert params_of(config) == {
        "bucket": "pages",
        "endpoint_override": "http://127.0.0.1:9000",
        "scheme": "http",
        "access_key": "AKIAEXAMPLE",
        "secret_key": "not-to-be-shown",
        "session_token": "temporary",
        "region": "eu-north-1",
        "use_virtual_addressing": "true",
        "crtMinLimit": "16777216",
    }


def test_without_a_session_token_the_plugin_gets_none() -> None:
    assert "session_token" not in params_of(parse(**OBJECTS))


@pytest.mark.parametrize("name", ["bucket", "secret_key", "session_token", "scheme"])
def test_a_plugin_parameter_that_is_a_field_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"plugin_params must not hold '{name}'"):
        params_of(parse(**OBJECTS, plugin_params={name: "x"}))


def test_a_missing_plugin_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"lacks the field 'plugin'; kvloop uses: POSIX, GDS"):
        config_type({"root": "/x"})


@pytest.mark.parametrize("plugin", ["GPUNETIO", "posix", 3, ["UCX"]])
def test_an_unknown_plugin_is_named_with_those_that_there_are(plugin: object) -> None:
    with pytest.raises(ConfigError, match=r"unknown plugin .*; kvloop uses: POSIX, .*UCX"):
        config_type({"plugin": plugin})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"plugin": "POSIX"}, "root"),
        ({"plugin": "POSIX", "root": "/x", "bucket": "b"}, "bucket"),
        ({"plugin": "POSIX", "root": "/x", "files_at_once": 0}, "files_at_once"),
        ({"plugin": "POSIX", "root": "/x", "overdue_s": 0}, "overdue_s"),
        ({"plugin": "POSIX", "root": "/x", "direct": True}, "direct"),
        ({"plugin": "POSIX", "root": "/x", "capacity_bytes": 0}, "capacity_bytes"),
        ({"plugin": "UCX"}, "server"),
        ({"plugin": "UCX", "server": "no-port"}, "server"),
        ({**OBJECTS, "bucket": "../up"}, "bucket"),
        ({**OBJECTS, "endpoint_override": "ftp://x"}, "endpoint_override"),
        ({**OBJECTS, "endpoint_override": "http://x/path"}, "endpoint_override"),
        ({**OBJECTS, "num_threads": 0}, "num_threads"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse(**fields)


@pytest.mark.parametrize("root", ["", "/a/../b", "/a\x00b", "/" + "x" * 10_000])
def test_a_root_that_is_no_usable_path_is_refused(root: str) -> None:
    config = parse(plugin="POSIX", root=root)
    assert isinstance(config, FileConfig)
    with pytest.raises(ConfigError, match="root"):
        file_settings(config)


def test_secrets_of_the_config_are_known_to_the_redactor() -> None:
    text = Redactor({**OBJECTS, "session_token": "temporary"}).text(
        "AKIAEXAMPLE not-to-be-shown temporary pages"
    )
    assert text == "*** *** *** pages"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"port": 0}, "port"),
        ({"segment_bytes": 4096}, "segment_bytes"),
        ({"record_bytes": 0}, "record_bytes"),
        ({"lease_s": 0}, "lease_s"),
    ],
)
def test_a_wrong_field_of_the_server_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        MemoryServerConfig(**fields)


def test_the_server_says_what_is_wrong_and_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nixl-store", "--lease-s", "99999"]) == 2
    assert "lease_s must be above 0" in capsys.readouterr().err

import socket
from pathlib import Path
from typing import Any

import pytest

from kvloop.router.app import run_router
from kvloop.router.config import RouterConfig, read_secret
from kvloop.router.errors import ApiError
from kvloop.router.tenants import read_tenants
from kvloop.shared_cache.errors import ConfigError


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"port": 70000}, "--port"),
        ({"prefill": ("127.0.0.1:1",)}, "--prefill"),
        ({"decode": ("http://host:port",)}, "--decode"),
        ({"decode": ("ftp://host",)}, "--decode"),
        ({"max_queued": 0}, "--max-queued"),
        ({"session_horizon_s": 0}, "--session-horizon-s"),
        ({"request_timeout_s": 0}, "--request-timeout-s"),
        ({"history_read_s": 0}, "--history-read-s"),
        ({"finish_timeout_s": -1}, "--finish-timeout-s"),
        ({"settle_s": -1}, "--settle-s"),
        ({"canary_interval_s": -1}, "--canary-interval-s"),
        ({"api_keys": "/nowhere/keys"}, "--api-keys"),
        ({"node_secret_file": "/nowhere/secret"}, "--node-secret-file"),
        ({"model": "/nowhere/model"}, "--model"),
    ],
)
def test_a_wrong_flag_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        RouterConfig(**wrong)


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port: cannot listen at 127.0.0.1:{port}"):
            run_router(RouterConfig(port=port))


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(" \n")
    with pytest.raises(ConfigError, match="--node-secret-file"):
        read_secret("--node-secret-file", str(tmp_path / "s"))


@pytest.mark.parametrize("text", ['{"k": "t"}', "k t\n", "# comment\n\n k   t \n"])
def test_keys_are_read_as_json_or_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    tenants = read_tenants(str(tmp_path / "keys"))
    assert tenants.tenant_of("Bearer k") == "t"
    for wrong in (None, "", "Bearer", "Bearer x", "Basic k", "k"):
        with pytest.raises(ApiError) as refused:
            tenants.tenant_of(wrong)
        assert refused.value.status == 401


@pytest.mark.parametrize("text", ["", "k\n", "k t extra\n", "{", '{"k": 1}', '{"k": ""}'])
def test_a_bad_key_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match="--api-keys"):
        read_tenants(str(tmp_path / "keys"))


def test_no_tenant_may_have_the_name_that_means_all_others(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("k *\n")
    with pytest.raises(ConfigError, match=r"--api-keys: .* names a tenant '\*'"):
        read_tenants(str(tmp_path / "keys"))


def test_without_a_key_file_there_is_no_tenant() -> None:
    assert read_tenants(None).tenant_of("Bearer whatever") is None

"""Flags and their errors."""

import re
import subprocess
import sys

import msgspec
import pytest

from kvloop.cli.main import build_parser, main
from kvloop.cli.node_command import ADMIN_KEY_VARIABLE, node_config
from kvloop.engine.node_config import NodeConfig
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import known_backends

COMMANDS = ("up", "prefill", "decode", "router", "store", "canary", "bench multi-turn")


def config_of(*flags: str) -> NodeConfig:
    args = build_parser().parse_args(["decode", "--model", "smollm2", *flags])
    return node_config(args, "decode")


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(argv)
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args([*command.split(), "--help"])
    assert stopped.value.code == 0
    assert "example" in capsys.readouterr().out


def test_a_node_without_flags_has_the_configurations_own_defaults() -> None:
    assert config_of() == NodeConfig(role="decode", model="smollm2")


def test_every_field_of_a_node_has_a_flag() -> None:
    decode = build_parser().parse_args(["decode", "--model", "m"])
    missing = [
        name for name in NodeConfig.__struct_fields__ if name != "role" and name not in decode
    ]
    assert not missing
    fields = {f.name: f for f in msgspec.structs.fields(NodeConfig)}
    assert all(hasattr(decode, name) for name in fields if name != "role")


def test_flags_reach_the_node() -> None:
    config = config_of(
        "--page-size",
        "16",
        "--router",
        "http://a:1/",
        "--router",
        "http://b:2",
        "--hicache-storage-backend",
        "file",
        "--hicache-storage-backend-extra-config",
        '{"root": "/r"}',
        "--hand-off-stall-s",
        "2.5",
    )
    assert config.page_size == 16
    assert config.router == ("http://a:1", "http://b:2")
    assert config.hicache_storage_backend_extra_config == {"root": "/r"}
    assert config.hand_off_stall_s == 2.5


def test_the_admin_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, "from-env")
    assert config_of().admin_api_key == "from-env"
    assert config_of("--admin-api-key", "given").admin_api_key == "given"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--port", "70000"), "--port"),
        (("--port", "x"), "--port"),
        (("--threads", "0"), "--threads"),
        (("--router", "localhost"), "--router"),
        (("--hicache-size", "nan"), "--hicache-size"),
        (("--hicache-storage-backend", "redis"), "--hicache-storage-backend"),
        (("--hicache-storage-backend-extra-config", "[1]"), "extra-config"),
        (("--hicache-storage-backend-extra-config", "{"), "extra-config"),
        (("--no-such-flag",), "--no-such-flag"),
    ],
)
def test_a_wrong_flag_is_named(
    flags: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refusal(capsys, "decode", "--model", "m", *flags)


def test_a_node_without_a_model_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--model" in refusal(capsys, "prefill")


def test_a_page_size_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ConfigError, match="--page-size must be a power of two, got 24"):
        config_of("--page-size", "24")


@pytest.mark.parametrize("pages", ['"9"', "1.5", "1.0", "true", "null", "[9]", "{}", "-1", "NaN"])
def test_a_quota_that_is_no_number_of_pages_names_flag_tenant_and_what_is_right(
    pages: str,
) -> None:
    right = "--hicache-tenant-quotas: 'team-a' must have a whole number of pages, 0 or above, got "
    with pytest.raises(ConfigError, match=f"^{re.escape(right)}"):
        config_of("--hicache-tenant-quotas", f'{{"*": 5, "team-a": {pages}}}')


def test_quotas_reach_the_node_as_they_were_given() -> None:
    config = config_of("--hicache-tenant-quotas", '{"team-a": 1000, "*": 0}')
    assert config.hicache_tenant_quotas == {"team-a": 1000, "*": 0}


def test_a_bad_url_of_a_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "URL" in refusal(capsys, "bench", "multi-turn", "127.0.0.1:8000")


@pytest.mark.parametrize("text", ["9:3", "3", "a:b", "-1:4"])
def test_a_bad_id_range_is_named(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("bench", "multi-turn", "http://h:1", f"--id-range={text}")
    assert "--id-range" in refusal(capsys, *argv)


def test_a_configuration_error_exits_with_2_and_its_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "multi-turn", "http://127.0.0.1:1", "--json", "/no/such/dir/f"]) == 2
    assert "kvloop bench multi-turn: error: --json /no/such/dir/f" in capsys.readouterr().err


def test_a_benchmark_of_no_server_says_where_it_looked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "multi-turn", "http://127.0.0.1:1"]) == 2
    assert "URL http://127.0.0.1:1" in capsys.readouterr().err


def test_help_imports_no_model_code() -> None:
    code = (
        "import sys; from kvloop.cli.main import build_parser; build_parser(); "
        "print([m for m in ('torch', 'transformers', 'fastapi', 'mooncake') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_an_extra_config_may_lie_in_a_file(tmp_path) -> None:
    path = tmp_path / "extra.json"
    path.write_text('{"root": "/r"}')
    config = config_of("--hicache-storage-backend-extra-config", f"@{path}")
    assert config.hicache_storage_backend_extra_config == {"root": "/r"}


def test_a_file_that_is_not_there_is_named(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        config_of("--hicache-storage-backend-extra-config", f"@{tmp_path}/none.json")
    assert "none.json" in capsys.readouterr().err


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("name", known_backends())
def test_every_backend_can_be_chosen(role: str, name: str) -> None:
    flags = ["--model", "m", "--hicache-storage-backend", name]
    args = build_parser().parse_args([role, *flags])
    assert args.hicache_storage_backend == name

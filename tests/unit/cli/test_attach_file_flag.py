"""`--hicache-storage-attach-file` on nodes and router."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvloop.cli.main import build_parser, main
from kvloop.cli.node_command import node_config
from kvloop.engine.node_config import NodeConfig
from kvloop.router.config import RouterConfig
from kvloop.shared_cache.errors import ConfigError

EXTRA = "hicache_storage_backend_extra_config_json"
DOCUMENT = {"hicache_storage_backend": "file", EXTRA: {"root": "/l3"}}


def attach_file(tmp_path: Path, document: Any = DOCUMENT) -> list[str]:
    path = tmp_path / "attach.json"
    path.write_text(json.dumps(document))
    return ["--hicache-storage-attach-file", str(path)]


def config_of(role: Any, *flags: str) -> NodeConfig:
    args = build_parser().parse_args([role, "--model", "smollm2", *flags])
    return node_config(args, role)


def router_of(monkeypatch: pytest.MonkeyPatch, *flags: str) -> RouterConfig:
    run: list[RouterConfig] = []
    monkeypatch.setattr("kvloop.router.app.run_router", run.append)
    assert main(["router", *flags]) == 0
    return run[0]


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_node_attaches_what_the_file_says(tmp_path: Path, role: str) -> None:
    config = config_of(role, *attach_file(tmp_path))
    assert config.hicache_storage_backend == "file"
    assert config.hicache_storage_backend_extra_config == {"root": "/l3"}


def test_an_empty_object_attaches_nothing(tmp_path: Path) -> None:
    assert config_of("decode", *attach_file(tmp_path, {})).hicache_storage_backend is None


def test_the_files_policies_are_a_prefill_nodes(tmp_path: Path) -> None:
    document = {"hicache_storage_prefetch_policy": "timeout", "hicache_write_policy": "write_back"}
    config = config_of("prefill", *attach_file(tmp_path, document))
    assert config.hicache_storage_prefetch_policy == "timeout"
    assert config.hicache_write_policy == "write_back"
    assert config_of("prefill").hicache_write_policy == "write_through", "the flag's own default"


def test_the_router_attaches_what_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = router_of(monkeypatch, *attach_file(tmp_path))
    assert config.hicache_storage_backend == "file"
    assert config.hicache_storage_backend_extra_config == {"root": "/l3"}


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--hicache-storage-backend", "file"), "--hicache-storage-backend"),
        (
            ("--hicache-storage-backend-extra-config", '{"root": "/x"}'),
            "--hicache-storage-backend-extra-config",
        ),
    ],
)
def test_the_file_and_the_flags_exclude_each_other(
    tmp_path: Path, flags: tuple[str, ...], named: str
) -> None:
    with pytest.raises(ConfigError, match=rf"attach-file says all .*: leave {named} out$"):
        config_of("decode", *attach_file(tmp_path), *flags)


def test_a_file_that_is_missing_ends_the_router_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "gone.json")
    assert main(["router", "--hicache-storage-attach-file", missing]) == 2
    assert f"--hicache-storage-attach-file {missing}: No such file" in capsys.readouterr().err

"""What a node attaches at start from a file, the pod's own values in it, and its digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvloop.shared_cache.attach_file import read_attach_file
from kvloop.shared_cache.config_digest import config_digest
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.pod_variables import VARIABLES, expanded
from kvloop.shared_cache.storage_change import StorageChange

EXTRA = "hicache_storage_backend_extra_config_json"


def written(tmp_path: Path, document: Any) -> str:
    path = tmp_path / "attach.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def test_a_file_says_what_a_put_says(tmp_path: Path) -> None:
    document = {"hicache_storage_backend": "file", EXTRA: {"root": "/l3"}}
    for member in ("prefill", "decode", "router"):
        change = read_attach_file(written(tmp_path, document), member)  # type: ignore[arg-type]
        assert change == StorageChange(backend="file", extra_config={"root": "/l3"})


@pytest.mark.parametrize("document", [{}, {"hicache_storage_backend": None}])
def test_a_file_may_say_that_nothing_is_attached(tmp_path: Path, document: Any) -> None:
    assert read_attach_file(written(tmp_path, document), "decode") == StorageChange()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not JSON"),
        ({"hicache_storage_backend": "fiel"}, "must be one of"),
        ({EXTRA: {"root": "/l3"}}, "of no use without"),
        ({"hicache_write_policy": "write_back"}, "this is the router"),
        ({"hicache_storage_backend": "file", EXTRA: {"root": "${POD_IP}"}}, "no POD_IP"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_flag_and_file(
    tmp_path: Path, document: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POD_IP", raising=False)
    path = written(tmp_path, document)
    with pytest.raises(ConfigError, match=words) as raised:
        read_attach_file(path, "router")
    assert str(raised.value).startswith(f"--hicache-storage-attach-file {path}: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"attach-file .*nowhere: No such file"):
        read_attach_file(str(tmp_path / "nowhere"), "prefill")


def test_a_file_keeps_its_variables_for_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_IP", "10.0.0.9")
    document = {"hicache_storage_backend": "file", EXTRA: {"root": "/l3/${POD_IP}"}}
    change = read_attach_file(written(tmp_path, document), "decode")
    assert change.extra_config == {"root": "/l3/${POD_IP}"}


def test_variables_are_put_in_at_any_depth_and_nothing_else_is() -> None:
    values = {"POD_IP": "10.0.0.9", "POD_NAME": "d-0", "NODE_NAME": "worker", "HOME": "/root"}
    config = {
        "local_hostname": "${POD_IP}",
        "far": {"config": {"names": ["${POD_NAME}@${NODE_NAME}", 3, None]}},
        "password": "${HOME}$POD_IP$${x}",
        "size": 1.5,
    }
    assert expanded(config, values) == {
        "local_hostname": "10.0.0.9",
        "far": {"config": {"names": ["d-0@worker", 3, None]}},
        "password": "${HOME}$POD_IP$${x}",
        "size": 1.5,
    }


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_that_is_not_set_is_named_with_its_field(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"far\.hosts\[1\] names \$\{{{name}\}}"):
        expanded({"far": {"hosts": ["a", f"${{{name}}}"]}}, {name: ""})


def test_the_digest_depends_on_everything_but_the_order_of_fields() -> None:
    base = config_digest("key", "file", {"root": "/a", "n": {"x": 1, "y": 2}})
    assert base == config_digest("key", "file", {"n": {"y": 2, "x": 1}, "root": "/a"})
    others = {
        config_digest("other", "file", {"root": "/a", "n": {"x": 1, "y": 2}}),
        config_digest("key", "hf3fs", {"root": "/a", "n": {"x": 1, "y": 2}}),
        config_digest("key", "file", {"root": "/b", "n": {"x": 1, "y": 2}}),
        config_digest("key", "file", {"root": "/a", "n": {"x": 1, "y": 3}}),
    }
    assert base not in others and len(others) == 4


def test_there_is_no_digest_without_a_key_or_a_backend() -> None:
    assert config_digest(None, "file", {}) is None
    assert config_digest("", "file", {}) is None
    assert config_digest("key", None, {}) is None

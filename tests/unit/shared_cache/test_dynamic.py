"""A `dynamic` backend is loaded from allowed modules only, and only where it can serve."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=1, head_size=8, itemsize=2)
NAMESPACE = b"n" * 32
MODULE = "kvloop_test_plug_in"
SOURCE = """
from pathlib import Path
from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig

Path(__file__).with_name("imported").touch()

class Files(FileBackend):
    def __init__(self, config, pool, namespace):
        assert dict(config) == {"root": config["root"], "flavour": "mint"}, config
        super().__init__(FileConfig(root=config["root"]), pool, namespace)

class Partial(StorageBackend):
    def exists(self, keys):
        return []

class SGLangs:
    def __init__(self, storage_config, kwargs):
        raise AssertionError("never made")

number = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    (tmp_path / f"{MODULE}_broken.py").write_text("raise ZeroDivisionError('on purpose')")
    (tmp_path / f"{MODULE}_exits.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(MODULE)]:
        del sys.modules[name]


def config(**fields: Any) -> dict[str, Any]:
    known = {"backend_name": "plug-in", "module_path": MODULE, "class_name": "Files"}
    return {**known, **fields}


def attach(fields: dict[str, Any], *allowed: str) -> Any:
    return backend_opener("dynamic", fields, HostPool(SHAPE, 2), NAMESPACE, allowed)


def test_an_allowed_class_serves_with_the_fields_that_are_its_own(folder: Path) -> None:
    pool = HostPool(SHAPE, 2)
    fields = config(root=str(folder / "l3"), flavour="mint", interface_v1=1)
    backend = backend_opener("dynamic", fields, pool, NAMESPACE, ["other", MODULE])()
    slots = pool.alloc(1)
    assert slots is not None
    assert backend.set([b"k" * 32], slots) == [True] and backend.exists([b"k" * 32]) == [True]
    backend.close()


@pytest.mark.parametrize("allowed", [(), ("kvloop_test",), (f"{MODULE}.sub",), (MODULE.upper(),)])
def test_a_module_that_is_not_allowed_by_its_exact_name_is_not_even_imported(
    folder: Path, allowed: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        attach(config(), *allowed)
    assert f"module_path {MODULE!r}" in str(caught.value)
    assert "--hicache-dynamic-modules" in str(caught.value)
    assert not (folder / "imported").exists() and MODULE not in sys.modules


def test_neither_a_submodule_nor_a_parent_of_an_allowed_module_is_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = folder / f"{MODULE}_package"
    package.mkdir()
    (package / "__init__.py").write_text(SOURCE)
    (package / "inner.py").write_text(SOURCE)
    for asked, allowed in ((f"{package.name}.inner", package.name), (package.name, "inner")):
        with pytest.raises(ConfigError, match="may load"):
            attach(config(module_path=asked), allowed)
    assert not (package / "imported").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"module_path": f"{MODULE}_gone"}, "cannot be imported: ModuleNotFoundError"),
        ({"module_path": f"{MODULE}_broken"}, "ZeroDivisionError: on purpose"),
        ({"module_path": f"{MODULE}_exits"}, "cannot be imported: SystemExit: 3"),
        ({"class_name": "Gone"}, "has no class_name 'Gone'"),
        ({"class_name": "number"}, "has no class_name 'number'"),
        ({"class_name": "Partial"}, "class_name 'Partial' lacks clear, close, delete, get"),
        ({"class_name": "SGLangs"}, "'SGLangs' is no kvloop.shared_cache.backend.StorageBackend"),
        ({"interface_v1": 2}, "`$.interface_v1`"),
        ({"class_name": 7}, "Expected `str`, got `int` - at `$.class_name`"),
    ],
)
def test_a_class_that_cannot_serve_is_refused_with_the_reason(
    folder: Path, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        attach(config(**fields), MODULE, f"{MODULE}_gone", f"{MODULE}_broken", f"{MODULE}_exits")
    assert words in str(caught.value)


@pytest.mark.parametrize("field", ["backend_name", "module_path", "class_name"])
def test_a_missing_field_is_named(field: str) -> None:
    fields = config()
    del fields[field]
    with pytest.raises(ConfigError, match=f"lacks the field '{field}'"):
        attach(fields, MODULE)

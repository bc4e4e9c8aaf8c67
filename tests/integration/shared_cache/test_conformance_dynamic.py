"""The backend `dynamic` over classes that only have SGLang's interface: its own, and others'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mooncake_store import MooncakeStore
from sglang_wheel import needs_sglang

from kvloop.shared_cache.conformance import BackendConformance, BackendSpec
from kvloop.shared_cache.conformance.content_suite import ContentSuite
from kvloop.shared_cache.conformance.place import Place

pytestmark = pytest.mark.integration


def dynamic(module: str, class_name: str, interface_v1: int, **fields: Any) -> dict[str, Any]:
    named = {"backend_name": "test", "module_path": module, "class_name": class_name}
    return {**named, "interface_v1": interface_v1, **fields}


@pytest.mark.slow  # see test_dynamic_sglang and test_dynamic_sglang_file
class TestGetSetAndExists(BackendConformance):
    """A class that has these three methods and no more."""

    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        module = "dynamic_backends.plain_files"
        return BackendSpec(
            name="dynamic",
            extra_config=dynamic(module, "PlainFiles", 0, directory=str(tmp_path / "l3")),
            dynamic_modules=(module,),
            can_delete=False,
            can_list=False,
            can_tell_misfits=False,  # SGLang's interface knows hits and misses only
        )


class TestBatchV1(BackendConformance):
    """A class that has the batch v1 methods and no others."""

    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        module = "dynamic_backends.indexed_files"
        return BackendSpec(
            name="dynamic",
            extra_config=dynamic(module, "IndexedFiles", 1, directory=str(tmp_path / "l3")),
            dynamic_modules=(module,),
            can_delete=False,
            can_keep_records=False,
            can_list=False,
            can_tell_misfits=False,  # SGLang's interface knows hits and misses only
        )


@pytest.mark.slow  # each of its processes imports half of SGLang
@needs_sglang
class TestSGLangsFileClass(BackendConformance):
    """SGLang's HiCacheFile, from its wheel: the first value of a key stays for ever."""

    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        module = "dynamic_backends.sglang_file"
        return BackendSpec(
            name="dynamic",
            extra_config=dynamic(module, "HiCacheFile", 0, file_storage_path=str(tmp_path / "l3")),
            dynamic_modules=(module,),
            can_delete=False,
            can_keep_records=False,
            can_list=False,
            can_tell_misfits=False,  # SGLang's interface knows hits and misses only
        )


@pytest.mark.slow
@needs_sglang
class TestSGLangsMooncakeClass(ContentSuite):
    """SGLang's MooncakeStore, by its batch v1 methods, on a real master and store.

    Without the suites that start processes: each would import half of SGLang.
    """

    @pytest.fixture
    def place(self, mooncake_store: MooncakeStore) -> Iterator[Place]:
        module = "dynamic_backends.sglang_mooncake"
        config = dynamic(
            module,
            "MooncakeStore",
            1,
            master_server_address=mooncake_store.address,
            local_hostname="127.0.0.1",
            metadata_server="P2PHANDSHAKE",
            protocol="tcp",
            global_segment_size=0,
        )
        spec = BackendSpec(
            name="dynamic", extra_config=config, dynamic_modules=(module,), can_delete=False
        )
        place = Place(spec)
        yield place
        place.close()

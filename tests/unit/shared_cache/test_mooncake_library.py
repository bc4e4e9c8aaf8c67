import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import kvloop.shared_cache
from kvloop.shared_cache.backends.mooncake import library as mooncake_library
from kvloop.shared_cache.backends.mooncake.store_server import StoreConfig
from kvloop.shared_cache.errors import ConfigError


def test_missing_libraries_name_the_debian_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def can_load(library: str) -> bool:
        return library == "libcurl.so.4"

    def fail(module: str) -> None:
        raise ImportError("libibverbs.so.1: cannot open shared object file")

    monkeypatch.setattr(mooncake_library, "_can_load", can_load)
    monkeypatch.setattr(mooncake_library.importlib, "import_module", fail)
    with pytest.raises(ConfigError, match=r"apt-get install libibverbs1 librdmacm1 libnuma1$"):
        mooncake_library.load_mooncake("store")
    with pytest.raises(ConfigError, match=r"apt-get install libibverbs1 librdmacm1 libnuma1$"):
        mooncake_library.master_binary()


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: str) -> None:
        raise ModuleNotFoundError("No module named 'mooncake'")

    monkeypatch.setattr(mooncake_library.importlib, "import_module", fail)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="install mooncake-transfer-engine-non-cuda"):
        mooncake_library.load_mooncake("store")
    with pytest.raises(ConfigError, match="install mooncake-transfer-engine-non-cuda"):
        mooncake_library.master_binary()


LIBRARIES = {"torch", "mooncake", "nixl", "nixl_cu12", "aibrix_kvcache", "rocksdict", "sglang"}


def test_the_room_needs_neither_torch_nor_a_stores_library_to_be_imported() -> None:
    room = Path(kvloop.shared_cache.__file__).parent
    paths = [path.relative_to(room).with_suffix("") for path in room.rglob("*.py")]
    names = [".".join(("kvloop", "shared_cache", *path.parts)) for path in paths]
    code = (
        "import importlib, sys;"
        f"[importlib.import_module(name) for name in {names!r}];"
        "loaded = {name.partition('.')[0] for name in sys.modules};"
        f"assert not {LIBRARIES!r} & loaded, loaded & {LIBRARIES!r}"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("port", 0, "port must be within 1 .. 65535, got 0"),
        ("metrics_port", 70000, "metrics_port must be within"),
        ("metrics_port", 50051, "metrics_port must differ from port, got 50051 for both"),
        ("segment_bytes", 5, "segment_bytes must be at least 16777216, got 5"),
        ("protocol", "smoke", "protocol must be tcp or rdma, got 'smoke'"),
    ],
)
def test_a_wrong_store_option_names_itself(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StoreConfig(**{field: value})  # type: ignore[arg-type]

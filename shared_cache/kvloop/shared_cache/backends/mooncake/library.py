"""Finding and quieting the Mooncake wheel: its modules, its master binary and what both need."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from kvloop.shared_cache.errors import ConfigError

_WHEELS = "mooncake-transfer-engine-non-cuda (CPU) or mooncake-transfer-engine (CUDA)"
_DEBIAN = {
    "libibverbs.so.1": "libibverbs1",
    "librdmacm.so.1": "librdmacm1",
    "libnuma.so.1": "libnuma1",
    "libcurl.so.4": "libcurl4",
}


def load_mooncake(module: str) -> Any:
    """Import `mooncake.<module>` (store, engine); raises ConfigError saying what to install."""
    quiet_mooncake()
    try:
        return importlib.import_module(f"mooncake.{module}")
    except ImportError as error:
        raise ConfigError(_remedy(error)) from error


def master_binary() -> Path:
    """Path of `mooncake_master`; raises ConfigError where it is missing or cannot run."""
    spec = importlib.util.find_spec("mooncake")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ConfigError(f"Mooncake is not installed; install {_WHEELS}")
    path = Path(next(iter(folders))) / "mooncake_master"
    if not path.exists():
        raise ConfigError(f"{path} is missing; install {_WHEELS}")
    if missing := _missing_libraries():
        raise ConfigError(_install(missing))
    return path


def quiet_mooncake() -> None:
    """Before the first import: errors only, and give up on a dead master soon.

    What the environment says already is left alone; MC_LOG_LEVEL=INFO shows everything.
    """
    os.environ.setdefault("MC_LOG_LEVEL", "ERROR")
    os.environ.setdefault("MC_STORE_CLIENT_METRIC", "0")
    # The default of 20 tries blocks for 90 s where no master listens.
    os.environ.setdefault("MC_STORE_CLIENT_SETUP_RETRIES", "1")
    # The default of 30 s is how long all of Python stands still when a master hangs at a setup.
    os.environ.setdefault("MC_RPC_TIMEOUT_MS", "3000")


def trim_memory() -> None:
    """Hand what the library has freed back to the system, where the C library can.

    Each connection is used by threads of its own, and so fills heaps of their own, which the C
    library would keep: on a machine with many cores there may be hundreds.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _remedy(error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"Mooncake is not installed; install {_WHEELS}"
    missing = _missing_libraries()
    return _install(missing) if missing else f"Mooncake cannot be loaded: {error}"


def _missing_libraries() -> list[str]:
    return [name for name in _DEBIAN if not _can_load(name)]


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _install(libraries: list[str]) -> str:
    packages = " ".join(_DEBIAN[name] for name in libraries)
    return (
        f"Mooncake cannot be loaded: {', '.join(libraries)} missing; on Debian and Ubuntu: "
        f"apt-get install {packages}"
    )

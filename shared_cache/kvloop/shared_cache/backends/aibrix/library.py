"""Loading AIBrix's library, and keeping it from changing the process it is loaded into."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kvloop.shared_cache.backends.aibrix.config import L2Backend
from kvloop.shared_cache.errors import ConfigError

_INSTALL = (
    "pip install --no-deps aibrix-kvcache uvloop cityhash more-itertools redis zstandard rocksdict "
    "sortedcontainers (without --no-deps it brings PyPI's asyncio and profilers, of no use here)"
)
_AT_IMPORT = {
    "AIBRIX_KV_CACHE_OL_TOKEN_VALIDATION_ENABLED": "0",  # keys are hashes, not tokens
    "AIBRIX_KV_CACHE_OL_PROFILING_ENABLED": "0",
}
_environment_lock = threading.RLock()


def load_aibrix(l2_backend: L2Backend) -> Any:
    """The module aibrix_kvcache; raises ConfigError saying what to install."""
    try:
        with aibrix_environment(_AT_IMPORT), _same_event_loops():
            module = importlib.import_module("aibrix_kvcache")
            if l2_backend == "ROCKSDB":
                importlib.import_module("rocksdict")
            _quieten()
    except ImportError as error:
        raise ConfigError(
            f"storage backend 'aibrix': AIBrix cannot be loaded: {error}; {_INSTALL}"
        ) from error
    if not module.MemoryRegion.use_compact_layout():
        raise ConfigError(
            "storage backend 'aibrix': aibrix_kvcache was imported before with "
            "AIBRIX_KV_CACHE_OL_TOKEN_VALIDATION_ENABLED on; it must be off"
        )
    return module


@contextmanager
def aibrix_environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that hold inside only; one user at a time."""
    with _environment_lock:
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextmanager
def _same_event_loops() -> Iterator[None]:
    """The library makes uvloop the whole process's policy when it is imported."""
    policy = asyncio.get_event_loop_policy()
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(policy)


def _quieten() -> None:
    """No pinned memory, no pool of a GiB and no progress bar for it: its pool is not used here."""
    allocator: Any = importlib.import_module("aibrix_kvcache.memory.allocator")
    manager: Any = importlib.import_module("aibrix_kvcache.cache_manager")
    allocator.TensorPoolAllocator.SLAB_MAX_NBYTES = 1 << 16
    allocator.tqdm = lambda items, *_: items
    manager.TESTING_DISABLE_PIN_MEMORY = True
    warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)

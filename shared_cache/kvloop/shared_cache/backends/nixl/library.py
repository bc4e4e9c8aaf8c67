"""Finding and quieting the NIXL wheel, and what its plugins can do here."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from kvloop.shared_cache.errors import ConfigError

_WHEELS = "nixl-cu12 or nixl-cu13 (they work without a GPU too)"
# `nixl` is a chooser that knows which of the two fits the machine's CUDA; it may be missing.
_MODULES = ("nixl", "nixl_cu13", "nixl_cu12")
_PROBE = "kvloop-probe"


def load_nixl() -> Any:
    """Import NIXL's Python API; raises ConfigError saying what to install."""
    quiet_nixl()
    _load_verbs_first()
    reasons = []
    for name in _MODULES:
        try:
            module = importlib.import_module(name)
            _quiet_logger()
            return module
        except ImportError as error:
            reasons.append(str(error))
    raise ConfigError(
        f"storage backend 'nixl': NIXL cannot be loaded ({'; '.join(reasons)}); install {_WHEELS}"
    )


def quiet_nixl() -> None:
    """Before the first import: errors only, and no long retries; what is set already stays."""
    os.environ.setdefault("NIXL_LOG_LEVEL", "ERROR")
    os.environ.setdefault("UCX_LOG_LEVEL", "error")
    # The AWS client's own mode tries a dead S3 endpoint for 25 s.
    os.environ.setdefault("AWS_RETRY_MODE", "standard")
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")


def _quiet_logger() -> None:
    """It has been imported before, perhaps, and prints to stdout."""
    if os.environ.get("NIXL_LOG_LEVEL") == "ERROR":
        logging.getLogger("nixl").setLevel(logging.ERROR)


def _load_verbs_first() -> None:
    """The wheel has its own libibverbs, which loads the system's plugins and with them the system's
    libnl beside the wheel's: loaded in that order, the process crashes at its exit."""
    with contextlib.suppress(OSError):
        ctypes.CDLL("libibverbs.so.1")


def new_agent(module: Any, name: str, *, serves_others: bool = False) -> Any:
    """An agent without a backend, whose calls may come from any thread.

    One that `serves_others` has NIXL's thread that does so, and that never rests: it takes a core.
    Without it transfers get on as they are waited for.
    """
    config = module.nixl_agent_config(
        enable_prog_thread=serves_others,
        backends=[],
        sync_mode=module.nixl_thread_sync_t.NIXL_THREAD_SYNC_STRICT,
    )
    return module.nixl_agent(name, config)


def check_plugin(module: Any, plugin: str, params: Mapping[str, str]) -> None:
    """Raise ConfigError where the plugin is unknown, cannot be loaded, or lacks a parameter.

    A plugin that does not publish its parameters (OBJ) is asked for none.
    """
    agent = new_agent(module, _PROBE)
    plugins = agent.get_plugin_list()
    if plugin not in plugins:
        raise ConfigError(
            f"storage backend 'nixl': plugin {plugin!r} is not in this build of NIXL; it has: "
            f"{', '.join(plugins)}"
        )
    if not agent.get_plugin_mem_types(plugin):
        raise ConfigError(
            f"storage backend 'nixl': plugin {plugin!r} cannot be loaded here: the libraries that "
            "it needs are missing (GDS and GDS_MT: CUDA and cuFile)"
        )
    known = agent.get_plugin_params(plugin)
    for name in params:
        if known and name not in known:
            raise ConfigError(
                f"storage backend 'nixl': plugin_params has an unknown field {name!r}; {plugin} "
                f"knows: {', '.join(sorted(known))}"
            )

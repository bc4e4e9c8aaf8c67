"""The library's settings that are environment variables: read once, for the whole process."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

from kvloop.shared_cache.backends.mooncake.config import MooncakeConfig
from kvloop.shared_cache.errors import ConfigError

_lock = threading.Lock()
_is_read = False

_VARIABLES = {
    "gid_index": "MC_GID_INDEX",
    "ib_port": "MC_IB_PORT",
    "traffic_class": "MC_IB_TC",
    "service_level": "MC_IB_SL",
    "mtu": "MC_MTU",
}


def variables_of(config: MooncakeConfig) -> dict[str, str]:
    """The environment variables that say what the configuration says."""
    variables = {
        variable: str(value)
        for field, variable in _VARIABLES.items()
        if (value := getattr(config, field)) is not None
    }
    if config.cluster_id and not config.master_server_address.startswith("etcd://"):
        variables["MC_STORE_CLUSTER_ID"] = config.cluster_id
    return variables | config.environment


def require_environment(wanted: Mapping[str, str]) -> None:
    """Set the variables; raises ConfigError, and sets none, where the process has others already.

    The library reads them when it first connects: what comes later would silently be of no effect.
    """
    with _lock:
        for name, value in wanted.items():
            present = os.environ.get(name)
            if present == value:
                continue
            if present is not None or _is_read:
                raise ConfigError(
                    f"storage backend 'mooncake': {name} should be {value!r} but is "
                    f"{'unset' if present is None else repr(present)} for this whole process, by "
                    "its environment or by an earlier backend; restart it, or agree"
                )
        os.environ.update(wanted)


def environment_is_read() -> None:
    """The library connects now."""
    global _is_read
    with _lock:
        _is_read = True

"""A SharedCache in SGLang's own words: its storage backend, extra config and environment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvloop.operator.connection import Connection
from kvloop.operator.errors import ConnectError
from kvloop.operator.quantity import num_bytes
from kvloop.operator.types.pd_cluster import PDClusterSpec

FILES_DIR = "/etc/kvloop/sglang"
"""Configuration that SGLang reads from files."""
HF3FS_FILE = "hf3fs.json"
_AIBRIX = "AIBRIX_KV_CACHE_OL_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """For one node."""

    backend: str
    """For --hicache-storage-backend."""
    extra_config: Mapping[str, Any] = field(default_factory=dict)
    """For --hicache-storage-backend-extra-config; empty: none."""
    env: tuple[Mapping[str, Any], ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Content by name in FILES_DIR."""


def storage_of(connection: Connection, release_tag: str, spec: PDClusterSpec) -> Storage:
    """Pages of unequal tags never meet: the tag is in their names or in their directory.

    ConnectError where SGLang has no such backend, or cannot do what the cache asks for.
    """
    made = _MAKERS.get(connection.backend)
    if made is None:
        raise _unknown(f"SGLang has no backend {connection.backend}: name another SharedCache")
    return made(connection, release_tag, spec)


def _mooncake(connection: Connection, tag: str, spec: PDClusterSpec) -> Storage:
    """Nodes are clients only. The address of each is in its environment (MOONCAKE_LOCAL_HOSTNAME),
    which wins over the extra config that all have in common."""
    ours = connection.extra_config
    if ours.get("replica_num", 1) != 1 or ours.get("with_soft_pin"):
        raise _unknown(
            "SGLang stores one copy of a page and pins none: set mooncake.replicas to 1 and "
            "softPin to false"
        )
    if ours["protocol"] == "rdma" and spec.transfer_protocol == "tcp":
        raise _unknown(
            "SGLang has one Mooncake for transfer and store: beside a store of protocol rdma, "
            "transferProtocol must be rdma"
        )
    known = {
        "master_server_address": ours["master_server_address"],
        "metadata_server": "P2PHANDSHAKE",
        "protocol": ours["protocol"],
        "device_name": ours.get("device_name", ""),
        "global_segment_size": 0,
        "tenant_id": ours.get("tenant_id"),
        "extra_backend_tag": tag,
    }
    extra = {name: value for name, value in known.items() if value is not None}
    cluster_id = ours.get("cluster_id")
    env = () if cluster_id is None else ({"name": "MC_STORE_CLUSTER_ID", "value": cluster_id},)
    return Storage(backend="mooncake", extra_config=extra, env=env)


def _file(connection: Connection, tag: str, _spec: PDClusterSpec) -> Storage:
    ours = connection.extra_config
    env = [_variable("SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR", _directory(ours["root"], tag))]
    if "capacity_bytes" in ours:
        capacity = str(ours["capacity_bytes"])
        env.append(_variable("SGLANG_HICACHE_FILE_BACKEND_MAX_SIZE", capacity))
    return Storage(backend="file", env=tuple(env))


def _hf3fs(connection: Connection, tag: str, spec: PDClusterSpec) -> Storage:
    """One file a rank, which all nodes share: a server of SGLang's knows which page is where."""
    asked = spec.sglang.hf3fs if spec.sglang is not None else None
    if asked is None:
        raise _unknown(
            "backend hf3fs needs SGLang's metadata server: run it and set sglang.hf3fs, "
            "or name a SharedCache of backend file on the 3FS mount"
        )
    ours = connection.extra_config
    root = f"{ours['mount']}/{ours['directory']}"
    config = {
        "file_path_prefix": f"{root}/sglang-{tag}",
        "file_size": num_bytes(asked.file_size),
        "numjobs": asked.jobs,
        "entries": asked.entries,
        "metadata_server_url": asked.metadata_server,
    }
    return Storage(
        backend="hf3fs",
        env=(_variable("SGLANG_HICACHE_HF3FS_CONFIG_PATH", f"{FILES_DIR}/{HF3FS_FILE}"),),
        files={HF3FS_FILE: json.dumps(config, sort_keys=True)},
    )


def _nixl(connection: Connection, tag: str, _spec: PDClusterSpec) -> Storage:
    ours = connection.extra_config
    plugin, prefix = ours["plugin"], "SGLANG_HICACHE_NIXL_BACKEND_"
    if plugin == "UCX":
        raise _unknown("plugin UCX is kvloop's own: SGLang has POSIX, GDS, GDS_MT, HF3FS and OBJ")
    env = [_variable(f"{prefix}PLUGIN", "3FS" if plugin == "HF3FS" else plugin)]
    if plugin != "OBJ":
        env.append(_variable(f"{prefix}STORAGE_DIR", _directory(ours["root"], tag)))
        return Storage(backend="nixl", env=tuple(env))
    # A bucket has no directories: SGLang's names there hold the served model's name, no tag.
    env += [_from_secret(connection, name) for name in ("access_key", "secret_key")]
    extra = {name: ours[name] for name in ("bucket", "endpoint_override") if name in ours}
    return Storage(
        backend="nixl", extra_config=extra, env=tuple(variable for variable in env if variable)
    )


def _aibrix(connection: Connection, tag: str, _spec: PDClusterSpec) -> Storage:
    ours = connection.extra_config
    kind = ours["l2_cache_backend"]
    env = {
        "L1_CACHE_ENABLED": "0",
        "L2_CACHE_BACKEND": kind,
        "L2_CACHE_NAMESPACE": tag,
        f"{kind}_ROOT": _directory(ours["root"], tag),
    }
    variables = tuple(_variable(f"{_AIBRIX}{name}", value) for name, value in env.items())
    return Storage(backend="aibrix", env=variables)


def _dynamic(connection: Connection, tag: str, _spec: PDClusterSpec) -> Storage:
    """SGLang takes the configuration by its command line, where all can read it."""
    if connection.secrets:
        raise _unknown("configSecret would be in SGLang's command line: remove it")
    extra = {"extra_backend_tag": tag, **connection.extra_config}
    return Storage(backend="dynamic", extra_config=extra)


_MAKERS: Mapping[str, Callable[[Connection, str, PDClusterSpec], Storage]] = {
    "mooncake": _mooncake,
    "file": _file,
    "hf3fs": _hf3fs,
    "nixl": _nixl,
    "aibrix": _aibrix,
    "dynamic": _dynamic,
}


def _directory(root: str, tag: str) -> str:
    return f"{root}/sglang-{tag}"


def _variable(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "value": value}


def _from_secret(connection: Connection, key: str) -> dict[str, Any]:
    """As the AWS library that the plugin is made with reads it."""
    name = {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"}[key]
    for one in connection.secrets:
        if one.path == (key,):
            reference = {"name": one.secret, "key": one.key}
            return {"name": name, "valueFrom": {"secretKeyRef": reference}}
    return {}


def _unknown(message: str) -> ConnectError:
    return ConnectError("sharedCacheRef.name", message)

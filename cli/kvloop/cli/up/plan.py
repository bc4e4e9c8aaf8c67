"""Which processes make the cluster, and with which flags. Pure."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from kvloop.cli.up.config import UpConfig

LOOPBACK = "127.0.0.1"
STORE_GIB = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the cluster."""

    name: str
    argv: tuple[str, ...]
    ready_url: str | None = None
    """Answers 200 when the part is ready."""
    ready_line: str | None = None
    """Or: its log has a line with these words."""
    starts_first: bool = False
    """The others start once it is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The parts in the order of their start, and where the nodes are."""

    parts: tuple[Part, ...]
    prefill_urls: tuple[str, ...]
    decode_urls: tuple[str, ...]


def num_inner_ports(config: UpConfig) -> int:
    """Free ports that `build_plan` needs: one a node, two for the store."""
    return config.prefill + config.decode + 2


def build_plan(config: UpConfig, ports: list[int], secret_file: Path) -> Plan:
    """Lay the cluster out on these loopback ports."""
    assert len(ports) >= num_inner_ports(config)
    rpc, metrics, *rest = ports
    prefill = [f"http://{LOOPBACK}:{port}" for port in rest[: config.prefill]]
    decode = [f"http://{LOOPBACK}:{port}" for port in rest[config.prefill :][: config.decode]]
    stores = [_store(rpc, metrics, config)] if config.shared_cache == "mooncake" else []
    storage = _storage_config(config, rpc)
    nodes = [
        _node(role, index, url, config, storage, secret_file)
        for role, urls in (("prefill", prefill), ("decode", decode))
        for index, url in enumerate(urls)
    ]
    router = _router(config, storage, secret_file)
    return Plan(
        parts=(*stores, *nodes, router), prefill_urls=tuple(prefill), decode_urls=tuple(decode)
    )


def pages_directory(config: UpConfig) -> Path:
    """Where `--shared-cache file` keeps its pages."""
    return config.directory / "pages"


def _storage_config(config: UpConfig, master_port: int) -> str:
    if config.shared_cache == "file":
        return json.dumps({"root": str(pages_directory(config))})
    return json.dumps({"master_server_address": f"{LOOPBACK}:{master_port}", "protocol": "tcp"})


def _command(name: str, *flags: str) -> tuple[str, ...]:
    # -P: a checkout's operator/ folder in the working directory must not be on the path.
    return (sys.executable, "-P", "-m", "kvloop.cli", name, *flags)


def _store(rpc: int, metrics: int, config: UpConfig) -> Part:
    flags = ("--host", LOOPBACK, "--port", str(rpc), "--metrics-port", str(metrics))
    return Part(
        name="store",
        argv=_command("store", *flags, "--segment-size", str(STORE_GIB)),
        ready_line="store ready",
        starts_first=True,
    )


def _node(
    role: str, index: int, url: str, config: UpConfig, storage: str, secret_file: Path
) -> Part:
    flags = {
        "--model": config.model,
        "--port": url.rpartition(":")[2],
        "--dtype": config.dtype,
        "--page-size": str(config.page_size),
        **_storage_flags(config, storage),
        "--router": config.url,
        "--node-secret-file": str(secret_file),
        "--log-level": config.log_level,
    }
    argv = _command(role, *_words(flags))
    return Part(name=f"{role}-{index}", argv=argv, ready_url=f"{url}/readyz")


def _router(config: UpConfig, storage: str, secret_file: Path) -> Part:
    flags = {
        "--host": config.host,
        "--port": str(config.port),
        # the ids of answers lie beside their pages: a router started anew finds them
        **_storage_flags(config, storage),
        "--node-secret-file": str(secret_file),
    }
    return Part(
        name="router",
        argv=_command("router", *_words(flags)),
        ready_url=f"{config.url}/readyz",
    )


def _storage_flags(config: UpConfig, storage: str) -> dict[str, str]:
    return {
        "--hicache-storage-backend": config.shared_cache,
        "--hicache-storage-backend-extra-config": storage,
    }


def _words(flags: dict[str, str]) -> list[str]:
    return [word for pair in flags.items() for word in pair]

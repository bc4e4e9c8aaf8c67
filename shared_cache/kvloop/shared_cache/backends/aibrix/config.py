"""The extra config of `aibrix`, and the settings of AIBrix's that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from kvloop.shared_cache.backend_config import parse_backend_config
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.safe_path import checked_root

L2Backend = Literal["SHFS", "ROCKSDB"]
BlockLayout = Literal["LCND", "NCLD"]
_FIELD = "storage backend 'aibrix': extra config: "
_PREFIX = "AIBRIX_KV_CACHE_OL_"
_NO_DEADLINE_MS = 3_600_000
_OF_ROCKSDB = ("ttl_s", "write_buffer_bytes")


class AibrixConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes that share pages agree on all but num_threads."""

    l2_cache_backend: L2Backend
    """SHFS: files in a directory that nodes share. ROCKSDB: a database of one process."""
    root: str
    """Directory of the store; made where it is missing."""
    mount_point: str | None = None
    """Where set, unavailable while nothing is mounted there."""
    layout: BlockLayout = "LCND"
    """Which layout AIBrix is told of; part of its names. A page's bytes are the same in both."""
    num_threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """Pages moved at once."""
    ttl_s: Annotated[int, msgspec.Meta(ge=0)] = 86_400
    """ROCKSDB: seconds after which a page may be dropped; 0: never."""
    write_buffer_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 64 << 20
    """ROCKSDB: memory for pages on their way to disk."""

    @property
    def path(self) -> Path:
        """The root, absolute."""
        return checked_root(f"{_FIELD}root", self.root)

    def environment(self, name: str, block_tokens: int) -> dict[str, str]:
        """AIBrix's settings for blocks under `name`; it reads them from the environment.

        Its DRAM cache stays off: a put would be True before the store has the block. Its own
        deadlines do too: after one it goes on writing to memory that it has given back.
        """
        settings: dict[str, object] = {
            "L1_CACHE_ENABLED": 0,
            "DEVICE": "cpu",
            "BLOCK_SIZE": -1,
            "CHUNK_SIZE": 4 * block_tokens,
            "MAX_SEQ_LEN": -1,
            "TIME_MEASUREMENT_ENABLED": 0,
            "BREAKDOWN_MEASUREMENT_ENABLED": 0,
            "META_SERVICE_BACKEND": "",
            "L2_CACHE_BACKEND": self.l2_cache_backend,
            "L2_CACHE_NAMESPACE": name,
            "L2_CACHE_KEY_BUILDER": "ROLLING_HASH",
            "L2_CACHE_INGESTION_MAX_INFLIGHT_TOKENS": 0,  # a put is done when it returns
            "L2_CACHE_NUM_ASYNC_WORKERS": self.num_threads,
            "L2_CACHE_PER_TOKEN_TIMEOUT_MS": _NO_DEADLINE_MS,
            f"{self.l2_cache_backend}_ROOT": self.path,
            "ROCKSDB_TTL_S": self.ttl_s,
            "ROCKSDB_WRITE_BUFFER_SIZE": self.write_buffer_bytes,
        }
        return {_PREFIX + field: str(value) for field, value in settings.items()}


def parse_aibrix_config(fields: Mapping[str, Any]) -> AibrixConfig:
    """Raises ConfigError naming the field that is wrong."""
    if fields.get("l2_cache_backend") == "MOCK":
        raise ConfigError(f"{_FIELD}l2_cache_backend 'MOCK' stores nothing; use SHFS or ROCKSDB")
    config = parse_backend_config("aibrix", fields, AibrixConfig)
    checked_root(f"{_FIELD}root", config.root)
    if config.mount_point is not None:
        checked_root(f"{_FIELD}mount_point", config.mount_point)
    for name in _OF_ROCKSDB:
        if name in fields and config.l2_cache_backend != "ROCKSDB":
            raise ConfigError(f"{_FIELD}{name} is a setting of l2_cache_backend ROCKSDB only")
    return config

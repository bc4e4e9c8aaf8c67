"""The plug-in's settings: SGLang's `--hicache-storage-backend-extra-config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from kvloop.shared_cache.backend_config import parse_backend_config

_OF_SGLANG = ("backend_name", "module_path", "class_name", "interface_v1")
_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class PluginConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What may stand in the extra config beside the fields by which SGLang finds the class."""

    backend: Annotated[str, msgspec.Meta(min_length=1)]
    """Name of a kvloop storage backend: file, mooncake, hf3fs, chain, ..."""
    config: dict[str, Any] = {}
    """The backend's own extra config."""
    release_tag: str = ""
    """Parts deployments that must not share pages: other weights under the same model name."""
    kv_dtype: str = ""
    """Of the KV, where the pool does not say: SGLang keeps every fp8 format as uint8."""
    staging_bytes: Annotated[int, msgspec.Meta(ge=1)] = 128 << 20
    """Host memory for pages on their way, for each of SGLang's pools; two pages at least."""
    deadline_s: _Seconds = 3.0
    """For one call to the store, of 64 MiB at most; after it the pages are misses."""
    open_timeout_s: _Seconds = 10.0
    """How long SGLang's start waits for the store; it goes on without it, which may come later."""
    dynamic_modules: tuple[str, ...] = ()
    """Modules that backend `dynamic` may load."""


def parse_plugin_config(extra_config: Mapping[str, Any] | None) -> PluginConfig:
    """Check the extra config; ConfigError names the field that is wrong."""
    fields = {name: value for name, value in (extra_config or {}).items() if name not in _OF_SGLANG}
    return parse_backend_config("sglang plug-in", fields, PluginConfig)

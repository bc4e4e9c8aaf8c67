"""The extra config of `nixl`: its fields depend on the plugin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from kvloop.shared_cache.errors import ConfigError

FilePlugin = Literal["POSIX", "GDS", "GDS_MT", "HF3FS"]
FILE_PLUGINS = ("POSIX", "GDS", "GDS_MT", "HF3FS")
PLUGINS = (*FILE_PLUGINS, "OBJ", "UCX")
Params = dict[str, str | int | float | bool]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class FileConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Plugins POSIX, GDS, GDS_MT and HF3FS: pages as files."""

    plugin: FilePlugin
    root: str
    """Directory; made where it is missing."""
    mount_point: str | None = None
    """Where set, the store is unavailable while nothing is mounted there."""
    capacity_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Of all pages under the root together; None: no bound."""
    direct: Literal["auto", "on", "off"] = "auto"
    """Past the page cache (O_DIRECT); auto: where the file system can."""
    files_at_once: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 128
    """Files of one call that are open, and in one NIXL request, at the same time."""
    overdue_s: Seconds = 30.0
    """A transfer that takes longer is counted as overdue; it is waited for nonetheless."""
    plugin_params: Params = {}
    """Handed to the plugin, such as use_uring of POSIX."""


class ObjectConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Plugin OBJ: pages as objects of an S3 bucket; names are the plugin's own."""

    plugin: Literal["OBJ"]
    bucket: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    """There already."""
    endpoint_override: Annotated[str, msgspec.Meta(pattern=r"^https?://[^/\s?#]+$")]
    """URL of the S3 service."""
    access_key: Text
    secret_key: Text
    session_token: str = ""
    region: Text = "us-east-1"
    use_virtual_addressing: bool = False
    """The bucket is part of the host's name instead of the path."""
    timeout_s: Seconds = 10.0
    """Of each S3 request that NIXL has no operation for: delete, list, records."""
    num_threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    """Such requests at once."""
    overdue_s: Seconds = 30.0
    """A transfer that takes longer is counted as overdue; it is waited for nonetheless."""
    plugin_params: Params = {}
    """Handed to the plugin in addition, such as crtMinLimit or ca_bundle."""


class MemoryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Plugin UCX: pages in the memory of a `nixl` memory server."""

    plugin: Literal["UCX"]
    server: Annotated[str, msgspec.Meta(pattern=r"^[^/\s]+:\d{1,5}$")]
    """host:port of the server's control socket."""
    timeout_s: Seconds = 3.0
    """Of each control message."""
    overdue_s: Seconds = 30.0
    """A transfer that takes longer is counted as overdue; it is waited for nonetheless."""
    plugin_params: Params = {}
    """Handed to the plugin, such as ucx_devices."""


def config_type(fields: Mapping[str, Any]) -> type[FileConfig | ObjectConfig | MemoryConfig]:
    """The struct for the plugin that the fields name; ConfigError where they name none of ours."""
    plugin = fields.get("plugin")
    if plugin in FILE_PLUGINS:
        return FileConfig
    if plugin == "OBJ":
        return ObjectConfig
    if plugin == "UCX":
        return MemoryConfig
    what = "lacks the field 'plugin'" if plugin is None else f"has an unknown plugin {plugin!r}"
    raise ConfigError(
        f"storage backend 'nixl': extra config {what}; kvloop uses: {', '.join(PLUGINS)}"
    )


def params_of(config: FileConfig | ObjectConfig | MemoryConfig) -> dict[str, str]:
    """The plugin's parameters as the plugin reads them."""
    own: Params = {}
    if isinstance(config, ObjectConfig):
        own = {
            "bucket": config.bucket,
            "endpoint_override": config.endpoint_override,
            "scheme": config.endpoint_override.partition(":")[0],
            "access_key": config.access_key,
            "secret_key": config.secret_key,
            "region": config.region,
            "use_virtual_addressing": config.use_virtual_addressing,
        }
        if config.session_token:
            own["session_token"] = config.session_token
    for name in config.plugin_params:
        if name in own or name == "session_token":
            raise ConfigError(
                f"storage backend 'nixl': plugin_params must not hold {name!r}; it is a field "
                "beside plugin_params"
            )
    return {name: _text(value) for name, value in (own | config.plugin_params).items()}


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""`--kv-events-config`: which streams of KV events a node publishes, and in what form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.kv_events import EventEncoding, HashForm

_FLAG = "--kv-events-config"
_SCHEMES = ("tcp", "ipc", "inproc")
_PUBLIC_HWM, _OWN_HWM = 100_000, 1_000
"""The first is vLLM's; kvloop's router asks for a replay of what it loses."""


class _Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The flag's JSON; the first eight are vLLM's."""

    enable_kv_cache_events: bool = True
    publisher: Literal["zmq", "null"] = "zmq"
    endpoint: str | None = None
    replay_endpoint: str | None = None
    buffer_steps: int = 10_000
    hwm: int | None = None
    max_queue_size: int = 100_000
    topic: str = ""
    token_ids: bool | None = None
    block_hashes: HashForm | None = None
    encoding: EventEncoding = "map"
    curve: bool | None = None
    own_ports: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """One stream."""

    endpoint: str
    """Of its PUB socket."""
    replay_endpoint: str | None
    """Always bound; None: there is no replay."""
    is_bound: bool = True
    """Whether subscribers connect to it, or it to them."""
    topic: str = ""
    buffer_steps: int = 10_000
    """Messages that a replay can go back."""
    hwm: int = _OWN_HWM
    """Messages that a slow subscriber may be behind before it loses some."""
    max_queue_size: int = 100_000
    """Pages that the loop may be ahead of the publisher."""
    token_ids: bool = False
    block_hashes: HashForm = "bytes"
    encoding: EventEncoding = "map"
    is_encrypted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsConfig:
    """The node's streams; None: it publishes nothing there."""

    own: StreamConfig | None
    """For kvloop's routers, announced in the node's record."""
    needs_own: bool
    """Its ports were asked for: a node that cannot have them does not start."""
    public: StreamConfig | None
    """For others, where an endpoint is named."""

    @property
    def streams(self) -> list[StreamConfig]:
        return [stream for stream in (self.own, self.public) if stream is not None]


def events_config(config: Mapping[str, Any], host: str, *, has_secret: bool) -> EventsConfig:
    """The flag's meaning for a node that listens on `host`; raises ConfigError naming a field."""
    try:
        fields = msgspec.convert(dict(config), _Fields)
    except msgspec.ValidationError as error:
        known = ", ".join(_Fields.__struct_fields__)
        raise ConfigError(f"{_FLAG}: {error}; its fields are {known}") from None
    _check(fields, has_secret)
    if not fields.enable_kv_cache_events or fields.publisher == "null":
        return EventsConfig(own=None, needs_own=False, public=None)
    address = f"[{host}]" if ":" in host else host
    live, replay = (f"tcp://{address}:{port}" for port in fields.own_ports or ("*", "*"))
    needs_own = fields.own_ports is not None
    if fields.endpoint is None:
        own = _stream(fields, live, replay, has_secret)
        return EventsConfig(own=own, needs_own=needs_own, public=None)
    own = StreamConfig(endpoint=live, replay_endpoint=replay, is_encrypted=has_secret)
    public = _stream(fields, fields.endpoint, fields.replay_endpoint)
    return EventsConfig(own=own, needs_own=needs_own, public=public)


def _stream(
    fields: _Fields, endpoint: str, replay: str | None, has_secret: bool = False
) -> StreamConfig:
    """Others expect tokens, and integers for hashes, as vLLM and SGLang send them."""
    is_public = fields.endpoint is not None
    return StreamConfig(
        endpoint=endpoint,
        replay_endpoint=replay,
        is_bound=not is_public or _is_bound(endpoint),
        topic=fields.topic,
        buffer_steps=fields.buffer_steps,
        hwm=fields.hwm or (_PUBLIC_HWM if is_public else _OWN_HWM),
        max_queue_size=fields.max_queue_size,
        token_ids=is_public if fields.token_ids is None else fields.token_ids,
        block_hashes=fields.block_hashes or ("int64" if is_public else "bytes"),
        encoding=fields.encoding,
        is_encrypted=has_secret if fields.curve is None else fields.curve,
    )


def _is_bound(endpoint: str) -> bool:
    """Where its host is a wildcard or its port one; else it is connected to, as vLLM does."""
    if not endpoint.startswith("tcp://"):
        return True
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return port == "*" or host in ("*", "0.0.0.0", "[::]", "::")


def _check(fields: _Fields, has_secret: bool) -> None:
    for name in ("buffer_steps", "hwm", "max_queue_size"):
        value = getattr(fields, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{_FLAG}: {name} must be above 0, got {value}")
    for name in ("endpoint", "replay_endpoint"):
        _check_endpoint(name, getattr(fields, name))
    if fields.replay_endpoint is not None and fields.endpoint is None:
        raise ConfigError(f"{_FLAG}: replay_endpoint needs an endpoint beside it")
    if fields.endpoint is None and fields.block_hashes == "int64":
        raise ConfigError(
            f"{_FLAG}: block_hashes int64 needs an endpoint: the router reads bytes, "
            "from a stream of its own"
        )
    ports = fields.own_ports
    if ports is not None and not (all(0 < port < 1 << 16 for port in ports) and len({*ports}) == 2):
        raise ConfigError(f"{_FLAG}: own_ports must be two different ports, got {ports}")
    if fields.curve and not has_secret:
        raise ConfigError(f"{_FLAG}: curve needs --node-secret-file, from which its keys derive")


def _check_endpoint(name: str, endpoint: str | None) -> None:
    if endpoint is None:
        return
    scheme, is_there, rest = endpoint.partition("://")
    is_good = bool(is_there and rest) and scheme in _SCHEMES
    if is_good and scheme == "tcp":
        port = rest.rpartition(":")[2]
        is_good = bool(urlsplit(f"//{rest}").netloc.rpartition(":")[0]) and (
            port == "*" or (port.isdecimal() and 0 < int(port) < 1 << 16)
        )
    if not is_good:
        raise ConfigError(
            f"{_FLAG}: {name} must be such as tcp://*:5557 or ipc:///run/kv-events, "
            f"got {endpoint!r}"
        )

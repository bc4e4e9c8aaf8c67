"""Events about pages in the form that vLLM and SGLang publish them, and where nodes publish them.

A message is `[topic, sequence number as 8 bytes big-endian, batch]`, a batch the msgpack array
`[time, events, data-parallel rank]`. Events are tagged maps, as vLLM writes them since version 0.26
and SGLang does; older subscribers of vLLM's expect tagged arrays of the same fields, in this order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec

from kvloop.shared_cache.tree_node import Tier

EventEncoding = Literal["map", "array"]
HashForm = Literal["bytes", "int64"]
Side = Literal["publisher", "subscriber"]

MEDIA = {Tier.DEVICE: "GPU", Tier.HOST: "CPU_PINNED"}
"""What peers call a node's tiers, whatever they are made of; L3 is nobody's own."""
END = (-1).to_bytes(8, "big", signed=True)
"""Sequence number of the message that ends a replay; its batch is empty."""
MAX_PAGES = 1024
"""Pages that one event names at most."""


class BlockStored(msgspec.Struct, tag=True, omit_defaults=True, gc=False):
    """Pages that follow `parent_block_hash`, each the one before it, are in a tier now."""

    block_hashes: Sequence[bytes | int]
    parent_block_hash: bytes | int | None
    """None: the first is a sequence's first page."""
    token_ids: Sequence[int]
    """`block_size` for each page; empty where the stream is without tokens."""
    block_size: int
    lora_id: int | None = msgspec.field(default_factory=lambda: None)
    """Always sent, as `lora_name` is: vLLM's types have no default for them."""
    medium: str | None = msgspec.field(default_factory=lambda: None)
    lora_name: str | None = msgspec.field(default_factory=lambda: None)
    cache_salt: str | None = None
    """Hex of the seed that the keys begin with; absent where tenant and salt are unset."""


class BlockRemoved(msgspec.Struct, tag=True, gc=False):
    """Pages are in a tier no more."""

    block_hashes: Sequence[bytes | int]
    medium: str | None


class AllBlocksCleared(msgspec.Struct, tag=True, gc=False):
    """Nothing is in any tier, as far as this stream goes."""


Event = BlockStored | BlockRemoved | AllBlocksCleared


class EventBatch(msgspec.Struct, array_like=True, gc=False):
    """What one message holds."""

    ts: float
    """Seconds since the epoch."""
    events: list[Any]
    data_parallel_rank: int | None = 0


_encoder = msgspec.msgpack.Encoder()
_batches = msgspec.msgpack.Decoder(EventBatch)


def encode_batch(events: Sequence[Event], ts: float, encoding: EventEncoding = "map") -> bytes:
    """The payload of one message."""
    as_sent = list(events) if encoding == "map" else [_positional(event) for event in events]
    return _encoder.encode(EventBatch(ts, as_sent))


def decode_batch(payload: bytes) -> tuple[float, list[Event]]:
    """A batch's time and its events, of either encoding; events of other kinds are left out.

    Raises msgspec.DecodeError (or its ValidationError) for what is no batch.
    """
    batch = _batches.decode(payload)
    events = [_event(raw) for raw in batch.events]
    return batch.ts, [event for event in events if event is not None]


def hash_forms() -> dict[HashForm, Callable[[bytes], bytes | int]]:
    """From a page's key to its name in events; int64 is SGLang's: its first 8 bytes."""
    return {"bytes": bytes, "int64": _int64}


def _int64(key: bytes) -> int:
    return int.from_bytes(key[:8], "big", signed=True)


def _positional(event: Event) -> list[Any]:
    name = type(event).__name__
    if isinstance(event, BlockStored):
        fields: list[Any] = [event.block_hashes, event.parent_block_hash, event.token_ids]
        return [name, *fields, event.block_size, event.lora_id, event.medium, event.lora_name]
    return [name, *(getattr(event, field) for field in event.__struct_fields__)]


_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind for kind in (BlockStored, BlockRemoved, AllBlocksCleared)
}


def _event(raw: Any) -> Event | None:
    """Converted field by field, so that a peer's further fields are of no account."""
    if isinstance(raw, list) and raw and isinstance(raw[0], str):
        kind, values = _KINDS.get(raw[0]), raw[1:]
        if kind is None:
            return None
        names = kind.__struct_fields__[: 7 if kind is BlockStored else None]
        raw = dict(zip(names, values, strict=False))
    elif isinstance(raw, dict):
        kind = _KINDS.get(raw.get("type", ""))
        if kind is None:
            return None
    else:
        raise msgspec.ValidationError(f"an event is a tagged map or array, got {type(raw)}")
    return msgspec.convert({"medium": None, **raw, "type": kind.__name__}, kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSource:
    """Where a node publishes, as its record says it: `tcp://host:port?replay=port&curve=1`."""

    endpoint: str
    replay_endpoint: str
    is_encrypted: bool
    """With CURVE, under keys that derive from the nodes' secret."""

    @property
    def url(self) -> str:
        """One line for `NodeRecord.events`."""
        curve = "&curve=1" if self.is_encrypted else ""
        return f"{self.endpoint}?replay={self.replay_endpoint.rpartition(':')[2]}{curve}"


def parse_source(url: str) -> EventSource:
    """The inverse of `EventSource.url`; raises ValueError for anything else."""
    parts, fields = urlsplit(url), parse_qs(urlsplit(url).query)
    if parts.scheme != "tcp" or not parts.hostname or parts.port is None:
        raise ValueError(f"events must be tcp://host:port?replay=port, got {url!r}")
    replay = fields.get("replay", [""])[0]
    if not replay.isdecimal() or not 0 < int(replay) < 1 << 16:
        raise ValueError(f"events must name the port of their replay, got {url!r}")
    host = parts.netloc.rpartition(":")[0]
    return EventSource(
        endpoint=f"tcp://{parts.netloc}",
        replay_endpoint=f"tcp://{host}:{replay}",
        is_encrypted=fields.get("curve") == ["1"],
    )


def curve_secret(secret: str, side: Side) -> bytes:
    """A side's secret CURVE key, 32 bytes: who knows the nodes' secret has both."""
    return hashlib.sha256(f"kvloop-kv-events-v1 {side}\0{secret}".encode()).digest()

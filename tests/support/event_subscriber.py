"""Peers' subscribers of KV events: vLLM's types as its documentation has them, a plain socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import zmq


class EventBatch(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """Of every version."""

    ts: float
    events: list[Any]
    data_parallel_rank: int | None = None


class StoredFields(msgspec.Struct):
    """In the order in which arrays have them; maps have more."""

    block_hashes: list[bytes | int]
    parent_block_hash: bytes | int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[tuple[Any, ...] | None] | None = None


class RemovedFields(msgspec.Struct):
    block_hashes: list[bytes | int]
    medium: str | None
    group_idx: int | None = None


class MapEvent(msgspec.Struct, omit_defaults=True, gc=False, tag=True):
    """From version 0.26 on."""


class BlockStored(StoredFields, MapEvent, gc=False, tag=True):
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    cache_salt: str | None = None
    """SGLang's alone."""


class BlockRemoved(RemovedFields, MapEvent, gc=False, tag=True):
    pass


class AllBlocksCleared(MapEvent):
    pass


class MapBatch(EventBatch):
    events: list[BlockStored | BlockRemoved | AllBlocksCleared]


class ArrayEvent(msgspec.Struct, array_like=True, omit_defaults=True, gc=False, tag=True):
    """Until version 0.25."""


class OldBlockStored(StoredFields, ArrayEvent, gc=False, tag="BlockStored"):
    pass


class OldBlockRemoved(RemovedFields, ArrayEvent, gc=False, tag="BlockRemoved"):
    pass


class OldAllBlocksCleared(ArrayEvent, tag="AllBlocksCleared"):
    pass


class ArrayBatch(EventBatch):
    events: list[OldBlockStored | OldBlockRemoved | OldAllBlocksCleared]


class Subscriber:
    """A SUB socket and a DEALER for replays; `with` closes them."""

    def __init__(self, endpoint: str, replay_endpoint: str | None = None, topic: str = "") -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sub = self._context.socket(zmq.SUB)
        self._sub.setsockopt_string(zmq.SUBSCRIBE, topic)
        self._sub.connect(endpoint)
        self._replay = self._context.socket(zmq.DEALER)
        if replay_endpoint is not None:
            self._replay.connect(replay_endpoint)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def next(self, timeout_s: float = 10.0) -> list[bytes]:
        """The frames of the next live message."""
        assert self._sub.poll(int(timeout_s * 1000)), "no message came"
        return self._sub.recv_multipart()

    def is_silent(self, for_s: float = 0.3) -> bool:
        return not self._sub.poll(int(for_s * 1000))

    def replayed(self, first: int, timeout_s: float = 10.0) -> Iterator[list[bytes]]:
        """Frames of each message of a replay, the end's too."""
        self._replay.send_multipart([b"", first.to_bytes(8, "big")])
        while True:
            assert self._replay.poll(int(timeout_s * 1000)), "the replay did not end"
            delimiter, *frames = self._replay.recv_multipart()
            assert delimiter == b""
            yield frames
            if frames[-2] == (-1).to_bytes(8, "big", signed=True):
                return

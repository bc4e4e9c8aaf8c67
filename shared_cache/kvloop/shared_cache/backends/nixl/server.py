"""The `nixl` memory server: a segment of this process's memory that clients read and write by UCX.

The command is `kvloop nixl-store`.
Its content lives as long as the process. It trusts whoever reaches it: private networks only.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import zmq

from kvloop.shared_cache.backends.nixl import messages as m
from kvloop.shared_cache.backends.nixl.desk import Desk
from kvloop.shared_cache.backends.nixl.object_table import ObjectTable
from kvloop.shared_cache.backends.nixl.record_table import RecordTable
from kvloop.shared_cache.backends.nixl.segment import Segment
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.stop_signals import stop_signals

_MIN_BYTES = 1 << 20
_POLL_MS = 200
_MAX_MESSAGE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryServerConfig:
    """What a memory server runs."""

    host: str = "127.0.0.1"
    """An address of this machine that clients reach: of the control socket. UCX finds its own."""
    port: int = 50061
    """Of the control socket."""
    segment_bytes: int = 4 << 30
    """Memory for pages; the least recently used make room."""
    record_bytes: int = 64 << 20
    """Memory for small records."""
    lease_s: float = 30.0
    """How long a client may take to read or write what it was shown."""
    plugin_params: Mapping[str, str] = field(default_factory=dict)
    """Handed to the UCX plugin."""

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ConfigError(f"port must be within 1 .. 65535, got {self.port}")
        for name in ("segment_bytes", "record_bytes"):
            if getattr(self, name) < _MIN_BYTES:
                raise ConfigError(
                    f"{name} must be at least {_MIN_BYTES}, got {getattr(self, name)}"
                )
        if not 0 < self.lease_s <= 3600:
            raise ConfigError(f"lease_s must be above 0 and at most 3600, got {self.lease_s}")


def run_memory_server(config: MemoryServerConfig, report: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT; call from the main thread of a process of its own.

    `report` gets one line when the server is ready. Raises ConfigError or StorageError where it
    cannot start.
    """
    with stop_signals() as stop, _listening(config) as socket:
        segment = Segment(config.segment_bytes, config.plugin_params)
        try:
            welcome = m.Welcome(
                secrets.token_bytes(16), segment.metadata, segment.base_address, segment.num_bytes
            )
            objects = ObjectTable(config.segment_bytes, config.lease_s)
            desk = Desk(welcome, objects, RecordTable(config.record_bytes))
            report(
                f"memory server ready: {config.host}:{config.port}, "
                f"{config.segment_bytes / 2**30:.2f} GiB by UCX"
            )
            _serve(socket, desk, stop)
        finally:
            segment.close()


def _serve(socket: zmq.Socket[bytes], desk: Desk, stop: threading.Event) -> None:
    decoder = msgspec.msgpack.Decoder(m.Request)
    encoder = msgspec.msgpack.Encoder()
    now = 0.0
    while not stop.is_set():
        if not socket.poll(_POLL_MS):
            continue
        frames = socket.recv_multipart()
        if len(frames) != 3:
            continue
        client, number, body = frames
        now = max(now, time.time())  # leases must not see a clock that is set back
        reply: m.Reply
        try:
            reply = desk.answer(decoder.decode(body), now)
        except msgspec.MsgspecError as error:
            reply = m.Refusal(f"the request was not understood: {error}")
        with contextlib.suppress(zmq.Again, zmq.ZMQError):  # a client that has gone meanwhile
            socket.send_multipart([client, number, encoder.encode(reply)], zmq.NOBLOCK)


@contextlib.contextmanager
def _listening(config: MemoryServerConfig) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    socket.maxmsgsize = _MAX_MESSAGE_BYTES
    try:
        try:
            socket.bind(f"tcp://{config.host}:{config.port}")
        except zmq.ZMQError as error:
            raise ConfigError(
                f"port {config.port}: cannot listen on {config.host}: {error}"
            ) from None
        yield socket
    finally:
        socket.close(0)
        context.term()

"""One stream of KV events: a PUB socket and a replay of what it sent, on a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import zmq

from kvloop.engine.event_config import StreamConfig
from kvloop.engine.event_curve import Gatekeeper, encrypt
from kvloop.engine.event_recorder import Cleared, Record, Removed, Stored
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.kv_events import (
    END,
    MAX_PAGES,
    MEDIA,
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    Event,
    encode_batch,
    hash_forms,
)

log = logging.getLogger("kvloop.events")
_GATHER_S = 0.05
"""Between two messages, so that a busy loop's turns become one: a message costs more than pages."""
_BUFFER_BYTES = 64 << 20
"""Of messages kept for replays, beside `buffer_steps`."""
_MAX_REQUEST_BYTES = 4096
"""Of a subscription, or of a request for a replay: peers send nothing longer."""
_POLL_MS = 500
_CLOSE_S = 2.0


class EventPublisher:
    """`publish` never waits. Message 0 says that nothing is stored: a node begins empty."""

    def __init__(
        self,
        config: StreamConfig,
        page_size: int,
        secret: str | None = None,
        dropped: Callable[[int], None] = lambda pages: None,
    ) -> None:
        """Bind or connect; raises ConfigError where that cannot be. `dropped` counts pages."""
        self._config, self._page_size, self._dropped = config, page_size, dropped
        self._hash = hash_forms()[config.block_hashes]
        self._lock = threading.Lock()
        self._queue: list[Record] = [Cleared()]
        self._num_queued = 0
        self._buffer: deque[tuple[int, bytes]] = deque(maxlen=config.buffer_steps)
        self._buffer_bytes = 0
        self._num_sent = 0
        self._is_closed = False
        self._bell = os.eventfd(1, os.EFD_NONBLOCK)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._open(secret if config.is_encrypted else None)
        self._thread = threading.Thread(target=self._run, name="kv-events", daemon=True)
        self._thread.start()

    def publish(self, records: Sequence[Record]) -> None:
        """Queue what happened; where the publisher is too far behind all is forgotten instead."""
        if self._is_closed:
            return
        num = sum(_num_pages(record) for record in records)
        with self._lock:
            is_first = not self._queue
            self._queue += records
            self._num_queued += num
            lost = self._num_queued if self._num_queued > self._config.max_queue_size else 0
            if lost:
                self._queue, self._num_queued = [Cleared()], 0
        if lost:
            self._dropped(lost)
        if is_first:
            os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Send what is queued, and end; nothing is published after it."""
        if self._is_closed:
            return
        self._is_closed = True
        os.eventfd_write(self._bell, 1)
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            os.close(self._bell)

    # --- sockets ------------------------------------------------------------------------------

    def _open(self, secret: str | None) -> None:
        config = self._config
        self._gatekeeper = Gatekeeper(self._context, secret) if secret is not None else None
        try:
            self._pub = self._socket(zmq.PUB, config.hwm, secret)
            self.endpoint = _attached(self._pub, config.endpoint, is_bound=config.is_bound)
            self._replay: zmq.Socket[bytes] | None = None
            self.replay_endpoint: str | None = None
            if config.replay_endpoint is not None:
                # A ROUTER drops what is over its mark; half of that may be read and not yet
                # acknowledged from the replay before.
                self._replay = self._socket(zmq.ROUTER, 2 * (config.buffer_steps + 1), secret)
                self.replay_endpoint = _attached(
                    self._replay, config.replay_endpoint, is_bound=True
                )
        except Exception:
            self._context.destroy(linger=0)
            os.close(self._bell)
            raise

    def _socket(self, kind: int, hwm: int, secret: str | None) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.sndhwm, socket.linger, socket.maxmsgsize = hwm, 0, _MAX_REQUEST_BYTES
        if secret is not None:
            encrypt(socket, secret)
        return socket

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._bell, zmq.POLLIN)
        for socket in (self._replay, self._gatekeeper and self._gatekeeper.socket):
            if socket is not None:
                poller.register(socket, zmq.POLLIN)
        is_closed = False
        while not is_closed:
            is_closed = self._is_closed
            try:
                self._turn(dict(poller.poll(0 if is_closed else _POLL_MS)))
            except Exception:
                log.exception("a turn of the events' publisher failed")
                time.sleep(_GATHER_S)
        self._context.destroy(linger=int(_CLOSE_S * 1000) // 4)

    def _turn(self, ready: dict[object, int]) -> None:
        if self._gatekeeper is not None and self._gatekeeper.socket in ready:
            self._gatekeeper.answer()
        if self._replay is not None and self._replay in ready:
            self._serve_replay(self._replay)
        if self._bell in ready:
            os.eventfd_read(self._bell)
            self._send_queued()
            time.sleep(_GATHER_S)

    def _send_queued(self) -> None:
        with self._lock:
            records, self._queue = self._queue, []
            num, self._num_queued = self._num_queued, 0
        try:
            for events in _messages(self._events(records)):
                self._send(events)
        except Exception:  # nobody may go on believing what this was to correct
            log.exception("events could not be published")
            self._dropped(num)
            self._send([AllBlocksCleared()])

    def _send(self, events: Sequence[Event]) -> None:
        payload = encode_batch(events, time.time(), self._config.encoding)
        number, self._num_sent = self._num_sent, self._num_sent + 1
        if len(self._buffer) == self._config.buffer_steps:
            self._buffer_bytes -= len(self._buffer[0][1])
        self._buffer.append((number, payload))
        self._buffer_bytes += len(payload)
        while self._buffer_bytes > _BUFFER_BYTES and len(self._buffer) > 1:
            self._buffer_bytes -= len(self._buffer.popleft()[1])
        self._pub.send_multipart((self._config.topic.encode(), number.to_bytes(8, "big"), payload))

    def _serve_replay(self, socket: zmq.Socket[bytes]) -> None:
        """Of a REQ or a DEALER: all messages from the number that it names on, then the end."""
        *head, start = socket.recv_multipart()
        if len(start) != 8 or not head:
            log.warning("a replay must be asked for by 8 bytes, got %d", len(start))
            return
        # As vLLM until 0.25: its replays had no topic.
        is_old = self._config.encoding == "array"
        topic = [] if is_old else [self._config.topic.encode()]
        first = int.from_bytes(start, "big")
        for number, payload in self._buffer:
            if number >= first:
                socket.send_multipart([*head, *topic, number.to_bytes(8, "big"), payload])
        socket.send_multipart([*head, *([] if is_old else [b""]), END, b""])

    def _events(self, records: Sequence[Record]) -> Iterator[Event]:
        for record in records:
            if isinstance(record, Stored):
                yield from self._stored(record)
            elif isinstance(record, Removed):
                yield from self._removed(record)
            else:
                yield AllBlocksCleared()

    def _stored(self, record: Stored) -> Iterator[Event]:
        if self._config.token_ids and record.tokens is None:
            return  # nobody could make anything of it
        tokens = record.tokens if self._config.token_ids else None
        salt = record.seed.hex() if record.seed is not None and tokens is not None else None
        for start in range(0, len(record.keys), MAX_PAGES):
            end = min(start + MAX_PAGES, len(record.keys))
            parent = record.keys[start - 1] if start else record.parent
            size = self._page_size
            yield BlockStored(
                block_hashes=[self._hash(key) for key in record.keys[start:end]],
                parent_block_hash=None if parent is None else self._hash(parent),
                token_ids=[] if tokens is None else tokens[start * size : end * size],
                block_size=size,
                medium=MEDIA[record.tier],
                cache_salt=salt,
            )

    def _removed(self, record: Removed) -> Iterator[Event]:
        for start in range(0, len(record.keys), MAX_PAGES):
            hashes = [self._hash(key) for key in record.keys[start : start + MAX_PAGES]]
            yield BlockRemoved(hashes, MEDIA[record.tier])


def _num_pages(record: Record) -> int:
    return 0 if isinstance(record, Cleared) else len(record.keys)


def _messages(events: Iterator[Event]) -> Iterator[list[Event]]:
    """Lists of events that make a message of limited size each."""
    message: list[Event] = []
    num_pages = 0
    for event in events:
        num = 0 if isinstance(event, AllBlocksCleared) else len(event.block_hashes)
        if message and num_pages + num > MAX_PAGES:
            yield message
            message, num_pages = [], 0
        message.append(event)
        num_pages += num
    if message:
        yield message


def _attached(socket: zmq.Socket[bytes], endpoint: str, *, is_bound: bool) -> str:
    """Where the socket is, in full; raises ConfigError where it cannot be."""
    socket.ipv6 = "[" in endpoint
    try:
        socket.bind(endpoint) if is_bound else socket.connect(endpoint)
    except zmq.ZMQError as error:
        verb = "listen at" if is_bound else "connect to"
        raise ConfigError(f"--kv-events-config: cannot {verb} {endpoint}: {error}") from error
    return str(socket.getsockopt_string(zmq.LAST_ENDPOINT)).rstrip("\0")

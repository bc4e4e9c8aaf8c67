"""The engine's end of the ZeroMQ link: one thread reads, one writes, the loop never blocks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import msgspec
import zmq

from kvloop.engine.messages import ToEngine, ToFront

_POLL_MS = 200
Intercept = Callable[[ToEngine], bool]


class EngineLink:
    """Connects to `{endpoint}.in` (front to engine) and `{endpoint}.out` (engine to front).

    `intercept` runs on the reading thread, for what cannot wait for the loop's next turn; it
    returns True for a message that it has dealt with.
    """

    def __init__(self, endpoint: str, intercept: Intercept | None = None) -> None:
        self._context = zmq.Context()
        self.intercept = intercept
        self._inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[ToFront | None] = queue.SimpleQueue()
        self._is_closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(f"{endpoint}.in",), daemon=True),
            threading.Thread(target=self._write, args=(f"{endpoint}.out",), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def send(self, message: ToFront) -> None:
        """Queue a message to the front; any thread may call it."""
        self._outbox.put(message)

    def receive(self, timeout_s: float) -> list[ToEngine]:
        """All messages that are here, waiting up to `timeout_s` for the first."""
        messages: list[ToEngine] = []
        try:
            messages.append(self._inbox.get(block=timeout_s > 0, timeout=timeout_s or None))
            while True:
                messages.append(self._inbox.get_nowait())
        except queue.Empty:
            return messages

    def close(self) -> None:
        self._is_closed.set()
        self._outbox.put(None)
        for thread in self._threads:
            thread.join(timeout=2)
        self._context.destroy(linger=500)

    def _read(self, address: str) -> None:
        socket = self._context.socket(zmq.PULL)
        socket.set_hwm(0)
        socket.connect(address)
        decoder: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
        while not self._is_closed.is_set():
            if socket.poll(_POLL_MS):
                message = decoder.decode(socket.recv())
                if self.intercept is None or not self.intercept(message):
                    self._inbox.put(message)
        socket.close()

    def _write(self, address: str) -> None:
        socket = self._context.socket(zmq.PUSH)
        socket.set_hwm(0)
        socket.connect(address)
        encoder = msgspec.msgpack.Encoder()
        while (message := self._outbox.get()) is not None:
            socket.send(encoder.encode(message))
        socket.close(linger=500)

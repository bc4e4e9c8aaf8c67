"""The client's end of the memory server's control socket."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TypeVar

import msgspec
import zmq

from kvloop.shared_cache.backends.nixl.messages import Body, Hello, Refusal, Reply, Request, Welcome
from kvloop.shared_cache.storage_errors import StorageUnavailable

Answer = TypeVar("Answer")


class ControlClient:
    """Asks one server, one question at a time; thread-safe."""

    def __init__(self, address: str, timeout_s: float) -> None:
        """Say hello; raises StorageUnavailable where no server answers within `timeout_s`."""
        self._address = address
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
        self._epoch = b""
        self._context = zmq.Context()
        self._socket = self._connect()
        try:
            self.welcome = self.ask(Hello(), Welcome)
        except BaseException:
            self.close()
            raise
        self._epoch = self.welcome.epoch

    def ask(self, body: Body, answer: type[Answer]) -> Answer:
        """Raise StorageUnavailable where no answer comes in time, or the server has restarted."""
        with self._lock:
            reply = self._exchange(self._encoder.encode(Request(self._epoch, body)))
        if isinstance(reply, Refusal):
            raise StorageUnavailable(f"{self._where} refuses: {reply.reason}")
        assert isinstance(reply, answer), reply
        return reply

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close(0)
        self._context.term()

    def _exchange(self, request: bytes) -> Reply:
        number = next(self._numbers).to_bytes(8, "big")
        deadline = time.monotonic() + self._timeout_s
        try:
            self._socket.send_multipart([number, request])
            while (left_s := deadline - time.monotonic()) > 0:
                if self._socket.poll(int(left_s * 1000) + 1):
                    echo, reply = self._socket.recv_multipart()
                    if echo == number:
                        return self._decoder.decode(reply)
        except (zmq.ZMQError, msgspec.MsgspecError, ValueError) as error:
            self._reconnect()
            raise StorageUnavailable(f"{self._where}: {error}") from error
        self._reconnect()
        raise StorageUnavailable(f"{self._where} did not answer within {self._timeout_s} s")

    def _reconnect(self) -> None:
        """What was asked and not answered must not reach a server that comes up later."""
        self._socket.close(0)
        self._socket = self._connect()

    def _connect(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.sndtimeo = int(self._timeout_s * 1000)
        socket.connect(f"tcp://{self._address}")
        return socket

    @property
    def _where(self) -> str:
        return f"storage backend 'nixl': the memory server at {self._address}"

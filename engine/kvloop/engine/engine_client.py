"""The front's end of the ZeroMQ link: starts the engine process and talks to it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from kvloop.engine.messages import (
    STACKS_SIGNAL,
    STOP,
    Call,
    Cancel,
    CancelDone,
    CheckPages,
    Died,
    EngineStart,
    Hello,
    LoadReport,
    Reply,
    StorageAction,
    ToEngine,
    ToFront,
)
from kvloop.engine.node_config import NodeConfig
from kvloop.engine.threads import engine_environment
from kvloop.shared_cache.errors import ConfigError, KVLoopError
from kvloop.shared_cache.wire import NodeLoad

log = logging.getLogger("kvloop.node")
_CALL_S = 10.0
_STOP_S = 15.0
"""For an engine to end in, beside the drain."""


class EngineClient:
    """`on_message` gets what the engine sends of its own accord, on the event loop."""

    def __init__(
        self, config: NodeConfig, module: str, on_message: Callable[[ToFront], None]
    ) -> None:
        self._config, self._module, self._on_message = config, module, on_message
        self._directory = tempfile.mkdtemp(prefix="kvloop-")
        self._endpoint = f"ipc://{self._directory}/engine"
        self._context = zmq.asyncio.Context()
        self._calls: dict[int, asyncio.Future[CancelDone | Reply]] = {}
        self._ids = itertools.count(1)
        self._encoder = msgspec.msgpack.Encoder()
        self.hello: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        self.load = NodeLoad()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Bind the link and start the process; `hello` resolves when it is ready."""
        self._to_engine = self._context.socket(zmq.PUSH)
        self._to_engine.set_hwm(0)  # a message that met a full queue would be lost
        self._to_engine.bind(f"{self._endpoint}.in")
        self._from_engine = self._context.socket(zmq.PULL)
        self._from_engine.set_hwm(0)
        self._from_engine.bind(f"{self._endpoint}.out")
        self.process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **engine_environment(self._config.threads)},
        )
        start = EngineStart(self._config, self._endpoint, os.getpid())
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(start) + b"\n")
        self.process.stdin.close()

    def send(self, message: ToEngine) -> None:
        """Queue a message to the engine; never blocks. What a dead engine is told is lost."""
        sent = self._to_engine.send(self._encoder.encode(message), zmq.NOBLOCK)
        asyncio.ensure_future(sent).add_done_callback(_forget)

    async def call(self, name: str) -> bytes:
        """Ask for `metrics`, `describe`, …; raises KVLoopError when no answer comes in time."""
        reply = await self._ask(lambda call: Call(call, name), _CALL_S)
        assert isinstance(reply, Reply)
        return reply.body

    async def act(
        self, make: Callable[[int], StorageAction | CheckPages], timeout_s: float
    ) -> Reply:
        """Have an action on L3 done, or pages looked at; raises KVLoopError after `timeout_s`."""
        reply = await self._ask(make, timeout_s)
        assert isinstance(reply, Reply)
        return reply

    async def cancel(self, request_id: str, attempt: str) -> bool:
        """Prefill: whether no write of the attempt is outstanding."""
        reply = await self._ask(lambda call: Cancel(call, request_id, attempt), _CALL_S)
        assert isinstance(reply, CancelDone)
        return reply.quiet

    async def _ask(
        self, make: Callable[[int], Call | Cancel | StorageAction | CheckPages], timeout_s: float
    ) -> CancelDone | Reply:
        call = next(self._ids)
        future = self._calls[call] = asyncio.get_running_loop().create_future()
        self.send(make(call))
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError as error:
            raise KVLoopError(f"the engine did not answer within {timeout_s} s") from error
        finally:
            del self._calls[call]

    async def read(self) -> None:
        """Serve the engine's messages until cancelled."""
        decoder: msgspec.msgpack.Decoder[ToFront] = msgspec.msgpack.Decoder(ToFront)
        while True:
            self._dispatch(decoder.decode(await self._from_engine.recv()))

    def _dispatch(self, message: ToFront) -> None:
        if isinstance(message, CancelDone | Reply):
            future = self._calls.get(message.call)
            if future is not None and not future.done():
                future.set_result(message)
        elif isinstance(message, Hello):
            self.hello.set_result(message)
        elif isinstance(message, LoadReport):
            self.load = message.load
        elif isinstance(message, Died):
            if not self.hello.done():
                kind = ConfigError if message.is_config else KVLoopError
                self.hello.set_exception(kind(message.message))
        else:
            self._on_message(message)

    async def wait_exit(self) -> int:
        """The engine's exit status, when it has ended."""
        assert self.process is not None
        while (status := self.process.poll()) is None:
            await asyncio.sleep(0.2)
        return status

    async def stop_process(self) -> None:
        """Ask it to end, and kill it after the drain's deadline; returns when it has ended."""
        if self.process is not None and self.process.poll() is None:
            # Mooncake's libraries have SIGTERM handlers of their own, which may swallow it.
            self.send(Call(0, STOP))
            await asyncio.to_thread(self._end, self.process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + self._config.drain_timeout_s + _STOP_S
        while process.poll() is None and time.monotonic() < until:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
        if process.poll() is None:
            log.error("the engine did not end in time and is killed; what its threads did:")
            process.send_signal(STACKS_SIGNAL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
            process.kill()
            process.wait()

    async def stop(self) -> None:
        """End the process, and the link."""
        await self.stop_process()
        self._context.destroy(linger=0)
        shutil.rmtree(self._directory, ignore_errors=True)


def _forget(sent: asyncio.Future[Any]) -> None:
    if not sent.cancelled() and isinstance(sent.exception(), zmq.Again):
        log.debug("a message met no engine")

"""Messages between a node's HTTP front and its engine process (msgpack over ZeroMQ)."""

from __future__ import annotations

import signal

import msgspec

from kvloop.engine.node_config import NodeConfig
from kvloop.shared_cache.canary import PageQuestion
from kvloop.shared_cache.storage_change import StorageChange
from kvloop.shared_cache.wire import (
    GenerateEvent,
    GenerateRequest,
    NodeLoad,
    PrefillEvent,
    PrefillRequest,
)


class EngineStart(msgspec.Struct, frozen=True):
    """First line of the engine's standard input."""

    config: NodeConfig
    endpoint: str
    parent: int


class Submit(msgspec.Struct, frozen=True, tag=True):
    """Decode: a new request."""

    request: GenerateRequest


class Abort(msgspec.Struct, frozen=True, tag=True):
    """Decode: the client is gone."""

    request_id: str


class Attempt(msgspec.Struct, frozen=True, tag=True):
    """Prefill: decode asks for a prompt."""

    request: PrefillRequest


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Prefill: decode gave an attempt up; answered by `CancelDone` under the same call id."""

    call: int
    request_id: str
    attempt: str


class CancelDone(msgspec.Struct, frozen=True, tag=True):
    call: int
    quiet: bool


STOP = "stop"
STACKS_SIGNAL = signal.SIGUSR1
"""Makes an engine write what its threads do to standard error."""


class Call(msgspec.Struct, frozen=True, tag=True):
    """Ask the engine something: `metrics`, `status`, `flush_cache`; or to end (`STOP`)."""

    call: int
    name: str


class AttachStorage(msgspec.Struct, frozen=True, tag=True):
    """Exchange the L3 backend, set policies, or both; may hold secrets. Answered by a Reply."""

    call: int
    change: StorageChange


class DetachStorage(msgspec.Struct, frozen=True, tag=True):
    """Let running calls end, for so long, and close L3. Answered by a Reply."""

    call: int
    timeout_s: float


class ClearStorage(msgspec.Struct, frozen=True, tag=True):
    """Remove this namespace from L3. Answered by a Reply."""

    call: int
    timeout_s: float


class CheckPages(msgspec.Struct, frozen=True, tag=True):
    """Look at a canary's pages, in L3 or on the device. Answered by a Reply."""

    call: int
    question: PageQuestion


StorageAction = AttachStorage | DetachStorage | ClearStorage


class Reply(msgspec.Struct, frozen=True, tag=True):
    call: int
    body: bytes
    status: int = 200
    """HTTP's, for what the front passes on."""


class HandOffEvent(msgspec.Struct, frozen=True, tag=True):
    """Decode: what prefill said about an attempt, and when the front read it (CLOCK_MONOTONIC)."""

    request_id: str
    attempt: str
    event: PrefillEvent
    received_at: float


class HandOffBroken(msgspec.Struct, frozen=True, tag=True):
    """Decode: the stream of an attempt ended without its last event."""

    request_id: str
    attempt: str
    reason: str


class AttemptQuiet(msgspec.Struct, frozen=True, tag=True):
    """Decode: no write of the attempt is outstanding, or its prefill engine is known dead."""

    attempt: str
    how: str


class AskPrefill(msgspec.Struct, frozen=True, tag=True):
    """Decode engine to its front: ask this prefill node."""

    url: str
    request: PrefillRequest


class GiveUp(msgspec.Struct, frozen=True, tag=True):
    """Decode engine to its front: stop reading the attempt, get its acknowledgement."""

    url: str
    incarnation: str
    request_id: str
    attempt: str


class Answer(msgspec.Struct, frozen=True, tag=True):
    """Decode engine to its front: an event of an answer."""

    request_id: str
    event: GenerateEvent


class AttemptEvent(msgspec.Struct, frozen=True, tag=True):
    """Prefill engine to its front: an event of an attempt."""

    attempt: str
    event: PrefillEvent


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The engine is ready; what its node is."""

    incarnation: str
    namespace: str
    session: str
    max_context: int
    model_path: str
    info: dict[str, str | int | float | bool | None]
    events: str = ""
    """`NodeRecord.events`."""


class LoadReport(msgspec.Struct, frozen=True, tag=True):
    load: NodeLoad


class Died(msgspec.Struct, frozen=True, tag=True):
    """The engine cannot go on; `message` is for the user."""

    message: str
    is_config: bool


ToEngine = (
    Submit
    | Abort
    | Attempt
    | Cancel
    | Call
    | AttachStorage
    | DetachStorage
    | ClearStorage
    | CheckPages
    | HandOffEvent
    | HandOffBroken
    | AttemptQuiet
)
ToFront = (
    AskPrefill | GiveUp | Answer | AttemptEvent | CancelDone | Reply | Hello | LoadReport | Died
)

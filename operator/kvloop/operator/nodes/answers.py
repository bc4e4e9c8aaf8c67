"""What nodes and routers answer, as far as the operator reads it; unknown fields are ignored."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

StageName = Literal["transfer", "write_back", "reuse"]
StageState = Literal["ok", "failed", "unknown", "skipped"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base: what a newer node says more is left out."""


class StorageStatus(Answer, frozen=True, kw_only=True):
    """GET, PUT and DELETE /hicache/storage-backend."""

    backend: str
    """`none` where none is attached."""
    state: Literal["attached", "detached", "attaching", "draining", "open"]
    last_error: str | None = None
    namespace: str = ""
    config_digest: str | None = None
    """Of the PUT's body, or of the file read at start; see `attach.config_digest`."""
    stats: dict[str, float] = {}


class Load(Answer, frozen=True, kw_only=True):
    """Of one node, half a second old at most."""

    running: int = 0
    waiting: int = 0
    free_pages: int = 0
    total_pages: int = 0
    offload_backlog_pages: int = 0


class Node(Answer, frozen=True, kw_only=True):
    """One node as it describes itself, and as a router sees it."""

    url: str
    role: Literal["prefill", "decode"]
    incarnation: str
    namespace: str = ""
    generation: str = ""
    zone: str = ""
    model: str = ""
    ready: bool = False
    load: Load = Load()
    state: Literal["ready", "starting", "suspect", "lost", ""] = ""
    """Of a router only."""


class NodeInfo(Answer, frozen=True, kw_only=True):
    """/server_info of a prefill or decode node."""

    node: Node


class RouterInfo(Answer, frozen=True, kw_only=True):
    """/server_info of a router."""

    role: Literal["router"]
    model: str | None = None
    missing: list[str] = []
    """What keeps it from serving."""
    nodes: list[Node] = []


class Stage(Answer, frozen=True, kw_only=True):
    """One stage of the loop."""

    stage: StageName
    state: StageState
    reason: str = ""
    seconds: float = 0.0
    is_observable: bool = True
    """False where this server shows nothing that tells it, however often it is asked."""


class Pair(Answer, frozen=True, kw_only=True):
    """The nodes that one chat went through, by URL."""

    decode: str = ""
    prefill: str = ""
    reader: str = ""
    """The prefill node of turn 2."""


class CanaryReport(Answer, frozen=True, kw_only=True):
    """What one canary found."""

    result: Literal["whole", "broken", "unknown"]
    broken_stage: StageName | None = None
    stages: list[Stage] = []
    pairs: list[Pair] = []
    notes: list[str] = []
    started_at: float = 0.0
    """Unix seconds."""
    seconds: float = 0.0

    def stage(self, name: StageName) -> Stage:
        """What was found of it; unknown where the report does not name it."""
        named = (stage for stage in self.stages if stage.stage == name)
        return next(named, Stage(stage=name, state="unknown", reason="the canary did not tell"))


class LastCanary(Answer, frozen=True, kw_only=True):
    """GET /canary of a router."""

    running: bool
    last: CanaryReport | None = None


def words(raw: bytes) -> str:
    """What an error's body says, of ours or of anybody's."""
    try:
        body: Any = msgspec.json.decode(raw)
        said = body["error"]["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        said = raw.decode(errors="replace").strip()
    return str(said)[:500]

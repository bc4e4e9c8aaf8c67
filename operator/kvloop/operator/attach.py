"""Moving running pods to another SharedCache: who is told, in which order, and what came of it.

A page that is stored while the roles disagree is found by the other role only if it is written
where the other will look. So the new store is tried on one decode node first; then all that write
what nobody else holds go there (decode's answers, the router's records); prefill goes last: it
holds its prompts' pages in L1 and L2 and writes them to the new store by itself. Whoever has
nothing attached has nothing to lose, and goes at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kvloop.operator.connection import Connection
from kvloop.operator.errors import NodeError
from kvloop.operator.nodes.answers import StorageStatus
from kvloop.operator.nodes.client import NodeClient

BACKEND = "hicache_storage_backend"
EXTRA_CONFIG = "hicache_storage_backend_extra_config_json"
_MAX_WAVES = 4
_AT_ONCE = 32
_SCOUTS = ("decode", "prefill", "router")

Document = Mapping[str, Any]
"""attach.json: the body of PUT /hicache/storage-backend; empty: nothing is to be attached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A running node or router."""

    name: str
    url: str
    role: Literal["prefill", "decode", "router"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a pod says is attached."""

    pod: Pod
    status: StorageStatus | None = None
    """None: it could not be asked, or refused what it was told."""
    fault: str = ""

    @property
    def is_attached(self) -> bool:
        """To whichever store."""
        return self.status is not None and self.status.state == "attached"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachOutcome:
    """How the pods stand to what is wanted; every pod is in exactly one of the three."""

    attached: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    """Not yet told, or opening; looked at again the next time."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Why a pod could not be asked, refused, or does not reach the store."""

    @property
    def is_whole(self) -> bool:
        """All pods have what is wanted."""
        return not self.pending and not self.faults


def attach_document(
    connection: Connection | None, extra_config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What pods of this connection attach. `extra_config` is its own with the secrets filled in."""
    if connection is None:
        return {}
    config = connection.extra_config if extra_config is None else extra_config
    return {BACKEND: connection.backend, EXTRA_CONFIG: dict(config)}


def config_digest(admin_key: str | None, document: Document) -> str | None:
    """As nodes tell it in `config_digest`: keyed, for a plain one would give short secrets away.

    None where there is no key, or nothing to attach.
    """
    if not admin_key or document.get(BACKEND) is None:
        return None
    given = {"backend": document[BACKEND], "extra_config": document.get(EXTRA_CONFIG) or {}}
    text = json.dumps(given, sort_keys=True, separators=(",", ":"))
    return hmac.new(admin_key.encode(), text.encode(), hashlib.sha256).hexdigest()


def has(status: StorageStatus, wanted: str | None) -> bool:
    """Whether the pod was told, be the store open or not."""
    if wanted is None:
        return status.backend == "none"
    return status.config_digest == wanted


def plan_attach(seen: Sequence[Seen], wanted: str | None) -> tuple[Pod, ...]:
    """Who is told now; nobody where all know, or where the store has yet to prove itself.

    wanted: digest of the configuration; None: detach.
    """
    asked = [(one, one.status) for one in seen if one.status is not None]
    others = [one for one, status in asked if not has(status, wanted)]
    idle = [one for one in others if not one.is_attached]
    if wanted is None or idle:
        return _pods(idle if wanted is not None else others)
    told = [one for one, status in asked if has(status, wanted)]
    if not told:
        return _pods(sorted(others, key=lambda one: _SCOUTS.index(one.pod.role))[:1])
    if not any(one.is_attached for one in told):
        return ()
    writers = [one for one in others if one.pod.role != "prefill"]
    return _pods(writers or others)


async def reattach(
    client: NodeClient, pods: Sequence[Pod], document: Document, *, timeout_s: float = 60.0
) -> AttachOutcome:
    """Look at all pods and tell those whose turn it is; raises nothing for a pod's fault.

    Safe to call again and again: a pod that has what is wanted is only looked at.
    """
    wanted = config_digest(client.admin_key, document)
    seen = {pod.name: Seen(pod=pod, fault="not asked in time") for pod in pods}
    if document.get(BACKEND) is not None and wanted is None:
        faults = dict.fromkeys(seen, "there is no admin key: pods cannot be told")
        return AttachOutcome(faults=faults)
    try:
        async with asyncio.timeout(timeout_s):
            await _waves(client, pods, document, wanted, seen)
    except TimeoutError:
        pass  # what was seen until now is told
    return outcome(list(seen.values()), wanted)


def outcome(seen: Sequence[Seen], wanted: str | None) -> AttachOutcome:
    """Sort the pods by what they said last."""
    attached, pending, faults = [], [], {}
    for one in seen:
        status, name = one.status, one.pod.name
        if status is None:
            faults[name] = one.fault
        elif not has(status, wanted) or status.state in ("attaching", "draining"):
            pending.append(name)
        elif status.state == "open":
            faults[name] = f"the store does not answer: {status.last_error or 'no reason given'}"
        else:
            attached.append(name)
    return AttachOutcome(attached=tuple(attached), pending=tuple(pending), faults=faults)


async def _waves(
    client: NodeClient,
    pods: Sequence[Pod],
    document: Document,
    wanted: str | None,
    seen: dict[str, Seen],
) -> None:
    await _each(pods, lambda pod: _look(client, pod), seen)
    for _ in range(_MAX_WAVES):
        now = plan_attach(list(seen.values()), wanted)
        if not now:
            return
        await _each(now, lambda pod: _tell(client, pod, document, wanted), seen)


async def _each(
    pods: Sequence[Pod], work: Callable[[Pod], Awaitable[Seen]], seen: dict[str, Seen]
) -> None:
    """Note each answer as it comes: the deadline may end the others."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(pod: Pod) -> None:
        async with gate:
            seen[pod.name] = await work(pod)

    async with asyncio.TaskGroup() as group:
        for pod in pods:
            group.create_task(one(pod))


async def _look(client: NodeClient, pod: Pod) -> Seen:
    try:
        return Seen(pod=pod, status=await client.storage_status(pod.url))
    except NodeError as error:
        return Seen(pod=pod, fault=str(error))


async def _tell(client: NodeClient, pod: Pod, document: Document, wanted: str | None) -> Seen:
    try:
        if wanted is None:
            return Seen(pod=pod, status=await client.detach(pod.url))
        return Seen(pod=pod, status=await client.attach(pod.url, document))
    except NodeError as error:
        return Seen(pod=pod, fault=str(error))


def _pods(seen: Sequence[Seen]) -> tuple[Pod, ...]:
    return tuple(one.pod for one in seen)

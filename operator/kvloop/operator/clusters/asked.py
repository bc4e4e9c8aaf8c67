"""What a cluster's nodes and routers say, and what they are told: the shell over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kvloop.operator.attach import AttachOutcome, attach_document, reattach
from kvloop.operator.attach import Pod as AttachPod
from kvloop.operator.build.pd_cluster import Context
from kvloop.operator.clusters.seen import Pod, Seen, role_of, runs, url_of
from kvloop.operator.errors import NodeError
from kvloop.operator.nodes.answers import LastCanary
from kvloop.operator.nodes.client import NodeClient
from kvloop.operator.nodes.metrics import PromptTokens

A = TypeVar("A")
_ATTACH_S = 40.0
"""For one round of telling pods; the next look goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Answers of one look."""

    attached: AttachOutcome
    canaries: Sequence[LastCanary]
    faults: Sequence[str]
    tokens: PromptTokens | None


def router_urls(seen: Seen) -> list[str]:
    """Of routers that serve."""
    return [url for pod in seen.staying("router") if runs(pod) and (url := url_of(pod))]


async def ask(client: NodeClient, context: Context | None, seen: Seen) -> Asked:
    """Raises nothing for a pod's fault; each call has its deadline. Without a context pods keep
    what they have attached."""
    routers = router_urls(seen)
    attached, canaries, tokens = await asyncio.gather(
        _attach(client, context, seen),
        _each(routers, client.canary_last),
        _each(routers, client.prompt_tokens),
    )
    return Asked(
        attached=attached,
        canaries=[one for one in canaries if isinstance(one, LastCanary)],
        faults=[str(one) for one in canaries if isinstance(one, NodeError)],
        tokens=_sum(tokens),
    )


async def _attach(client: NodeClient, context: Context | None, seen: Seen) -> AttachOutcome:
    if context is None:
        return AttachOutcome()
    document = attach_document(context.attached)
    pods = list(_attaching(context, seen))
    return await reattach(client, pods, document, timeout_s=_ATTACH_S)


def _attaching(context: Context, seen: Seen) -> Iterator[AttachPod]:
    """Running pods that have what the cache needs, and a use for it."""
    offload = context.spec.offload.enabled
    for role in ("prefill", "decode", "router"):
        for pod in seen.staying(role):
            url = url_of(pod)
            is_used = role != "decode" or offload
            if is_used and url is not None and runs(pod) and _mounts(context, pod):
                name = pod["metadata"]["name"]
                assert role_of(pod) == role
                yield AttachPod(name=name, url=url, role=role)


def _mounts(context: Context, pod: Pod) -> bool:
    """A pod of an older template may lack volumes of a cache that came later: it is replaced."""
    if context.attached is None:
        return True
    there = {volume["name"] for volume in pod["spec"].get("volumes") or ()}
    return {volume["name"] for volume in context.attached.volumes} <= there


async def _each(urls: Sequence[str], call: Callable[[str], Awaitable[A]]) -> list[A | NodeError]:
    async def one(url: str) -> A | NodeError:
        try:
            return await call(url)
        except NodeError as error:
            return error

    return list(await asyncio.gather(*(one(url) for url in urls)))


def _sum(counted: Sequence[PromptTokens | NodeError]) -> PromptTokens | None:
    """None where no router could be asked."""
    found = [one for one in counted if isinstance(one, PromptTokens)]
    if not found:
        return None
    total = PromptTokens()
    for one in found:
        total = total.plus(one)
    return total

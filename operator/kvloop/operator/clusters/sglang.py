"""What is seen of a cluster of engine sglang, whose nodes and router have no API of kvloop's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from kvloop.operator.attach import AttachOutcome
from kvloop.operator.build.pd_cluster import Context
from kvloop.operator.build.pd_cluster.model import served_name
from kvloop.operator.clusters.asked import Asked, router_urls
from kvloop.operator.clusters.seen import Seen, runs, url_of
from kvloop.operator.errors import NodeError
from kvloop.operator.names import REVISION
from kvloop.operator.nodes.answers import CanaryReport, LastCanary
from kvloop.operator.nodes.client import NodeClient
from kvloop.operator.nodes.metrics import PromptTokens, Samples
from kvloop.operator.probe.run import Target, run_probe
from kvloop.operator.types.pd_cluster import Canary, RoleName

_AGAIN_S = 10.0
"""At the earliest, after the last was begun."""


class Probes:
    """One at a time for each cluster, beside the looks; forgotten with the process, which then
    probes anew."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun: dict[str, float] = {}
        self._last: dict[str, CanaryReport] = {}

    def last(self, key: str) -> LastCanary:
        """As a router of kvloop's tells it."""
        return LastCanary(running=key in self._tasks, last=self._last.get(key))

    def start(self, key: str, target: Target, canary: Canary, *, is_wanted: bool) -> bool:
        """Where its time has come, or sooner where it is wanted; False where it is too early."""
        wait_s = _AGAIN_S if is_wanted else max(_AGAIN_S, canary.interval_seconds)
        if key in self._tasks or self._clock() - self._begun.get(key, -wait_s) < wait_s:
            return False
        self._begun[key] = self._clock()
        task = asyncio.create_task(self._run(key, target, float(canary.timeout_seconds)))
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return True

    async def _run(self, key: str, target: Target, timeout_s: float) -> None:
        self._last[key] = await run_probe(target, timeout_s=timeout_s)

    async def close(self) -> None:
        """End those that run."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def probe_target(context: Context, seen: Seen) -> Target | None:
    """None while no router serves."""
    routers = router_urls(seen)
    if not routers:
        return None
    spec = context.spec
    return Target(
        router=routers[0],
        model=served_name(spec.model),
        page_size=spec.hicache.page_size,
        prefills=_urls(seen, "prefill"),
        decodes=_urls(seen, "decode"),
        has_storage=context.storage is not None and spec.offload.enabled,
    )


async def ask_sglang(
    client: NodeClient, context: Context | None, seen: Seen, last: LastCanary
) -> Asked:
    """As `ask`: what was probed, and what the nodes count. Raises nothing for a pod's fault."""
    counted = await asyncio.gather(*(_tokens(client, url) for url in _urls(seen, "prefill")))
    known = [one for one in counted if one is not None]
    total = PromptTokens()
    for one in known:
        total = total.plus(one)
    return Asked(
        attached=_attached(context, seen),
        canaries=[last],
        faults=[],
        tokens=total if known else None,
    )


def _attached(context: Context | None, seen: Seen) -> AttachOutcome:
    """A node attaches when it starts: all have the cache once all are of the newest generation.
    Until then nothing is told, and what was attached before stays."""
    nodes = [*seen.staying("prefill"), *seen.staying("decode")]
    if context is None or not nodes:
        return AttachOutcome()
    made = {(pod["metadata"].get("labels") or {}).get(REVISION) for pod in nodes}
    if made != {context.generation} or not all(runs(pod) for pod in nodes):
        return AttachOutcome()
    return AttachOutcome(attached=tuple(pod["metadata"]["name"] for pod in nodes))


def _urls(seen: Seen, role: RoleName) -> Sequence[str]:
    return [url for pod in seen.staying(role) if runs(pod) and (url := url_of(pod))]


async def _tokens(client: NodeClient, url: str) -> PromptTokens | None:
    try:
        return _prompt_tokens(await client.metrics(url))
    except NodeError:
        return None


def _prompt_tokens(samples: Samples) -> PromptTokens | None:
    """By SGLang's own counters; None before the first prompt."""
    prompts = samples.sum("sglang:prompt_tokens_total")
    if prompts is None:
        return None
    cached = {
        source: samples.sum("sglang:cached_tokens_total", cache_source=source) or 0.0
        for source in ("device", "host", "storage", "total")
    }
    return PromptTokens(
        computed=max(0.0, prompts - sum(cached.values())),
        device=cached["device"] + cached["total"],
        host=cached["host"],
        storage=cached["storage"],
    )

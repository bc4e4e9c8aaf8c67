"""From a job to an answer that has begun: picks the nodes, and remembers what it learnt of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import count

from kvloop.router.jobs import Job
from kvloop.router.metrics import RouterMetrics
from kvloop.router.nodes import NodeRegistry
from kvloop.router.prefix_index import PrefixIndex
from kvloop.router.recent import RecentAnswers
from kvloop.router.routing import rank_decodes, rank_prefills
from kvloop.router.upstream import Attempt, NodeStream, Upstream
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import (
    GenerateRequest,
    NodeRecord,
    PrefillCandidate,
    Role,
    Started,
)


class Dispatcher:
    """Routes jobs by cached prefix, affinity, load and zone."""

    def __init__(
        self,
        registry: NodeRegistry,
        index: PrefixIndex,
        upstream: Upstream,
        metrics: RouterMetrics,
        zone: str,
    ) -> None:
        self._registry = registry
        self._index = index
        self._upstream = upstream
        self._metrics = metrics
        self._zone = zone
        self._turn = count()
        self._recent = RecentAnswers(time.monotonic)

    async def start(self, job: Job, model: str | None) -> tuple[NodeStream, Started]:
        """Open the job's answer at the best node that takes it; raises ApiError."""
        loop = asyncio.get_running_loop()
        self._metrics.queue.observe(loop.time() - job.arrived)
        tried: list[NodeRecord] = []
        attempts = self._attempts(job, model, tried)
        stream, started = await self._upstream.open(attempts, job.header_id, job.deadline)
        if len(tried) > 1:
            self._metrics.fallbacks.labels("decode_retry").inc()
        if started.fallback is not None:
            self._metrics.fallbacks.labels(started.fallback).inc()
        self._metrics.count_sources(started.sources)
        self._learn_prompt(job, stream, started)
        return stream, started

    def learn_answer(self, job: Job, node: NodeRecord, answer: Sequence[int]) -> None:
        """The node now holds the pages of prompt and answer, less the last token's."""
        if job.cache == "off":
            return
        tokens = [*job.prompt, *answer]
        keys = page_keys(tokens[:-1], node.page_size, job.seed)
        self._index.record(keys, node.incarnation)
        self._recent.note(keys, node.incarnation)

    def _attempts(self, job: Job, model: str | None, tried: list[NodeRecord]) -> Iterator[Attempt]:
        known: dict[int, tuple[dict[str, int], str | None]] = {}

        def know(node: NodeRecord) -> tuple[dict[str, int], str | None]:
            """What each node holds of the prompt, and who has just answered it, by page size."""
            if node.page_size not in known:
                keys = page_keys(job.prompt, node.page_size, job.seed)
                known[node.page_size] = self._index.leading_pages(keys), self._recent.node_of(keys)
            return known[node.page_size]

        def held(node: NodeRecord) -> dict[str, int]:
            return know(node)[0]

        turn = next(self._turn)
        decodes = rank_decodes(
            self._serving("decode", model),
            load=self._registry.load,
            held_pages=lambda node: held(node).get(node.incarnation, 0),
            zone=self._zone,
            turn=turn,
            fresh=lambda node: know(node)[1] == node.incarnation,
            prefills=self._serving("prefill", model),
        )
        for decode in decodes:
            tried.append(decode)
            prefills = rank_prefills(
                self._serving("prefill", model),
                decode,
                load=self._registry.load,
                held_pages=held(decode),
                turn=turn,
            )
            yield Attempt(decode, _request(job, decode, prefills))

    def _serving(self, role: Role, model: str | None) -> list[NodeRecord]:
        return [n for n in self._registry.ready(role) if model is None or n.model == model]

    def _learn_prompt(self, job: Job, stream: NodeStream, started: Started) -> None:
        if started.prefill_node is None:
            return
        incarnation = self._registry.incarnation_at(started.prefill_node)
        if incarnation is None or job.cache == "off":
            return
        keys = page_keys(job.prompt, stream.node.page_size, job.seed)
        self._index.record(keys, incarnation)


def _request(
    job: Job, decode: NodeRecord, prefills: tuple[PrefillCandidate, ...]
) -> GenerateRequest:
    return GenerateRequest(
        request_id=job.request_id,
        prompt=job.prompt,
        sampling=job.sampling,
        namespace=decode.namespace,
        generation=decode.generation,
        cache_seed=job.seed.hex() if job.seed is not None else None,
        cache=job.cache,
        tenant=job.tenant,
        priority=job.priority,
        prefills=prefills,
        timeout_s=max(0.0, job.deadline - asyncio.get_running_loop().time()),
        strip=job.strip,
        returns=job.returns,
    )

"""Simulated clusters that can be followed by hand, and runs made up from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvloop.benchmark.results.document import Report, Server
from kvloop.benchmark.sample import Sample, Sources
from kvloop.benchmark.simulate.cluster import Cluster, Run
from kvloop.benchmark.simulate.config import ClusterConfig
from kvloop.benchmark.simulate.profile import Profile
from kvloop.benchmark.simulate.prompt import Load, Prompt
from kvloop.benchmark.simulate.served import Served

PAGE = 16


def profile(**costs: Any) -> Profile:
    """A millisecond for each prompt token, ten for each step of decode; all else is free."""
    fields: dict[str, Any] = {
        "name": "made up",
        "model": "made up",
        "layers": 10,
        "kv_bytes_per_token": 1000.0,
        "memory_bytes": 16_000_000.0,
        "pcie_bytes_per_s": 1e12,
        "prefill_token_s": 0.001,
        "decode_step_s": 0.01,
        "fetch_latency_s": 0.0,
        "chunk_tokens": 512,
        "enough_tokens": 128,
        "max_running": 16,
        **costs,
    }
    return Profile(**fields)


def prompt(number: int, num_tokens: int, chat: int | None = None, **changes: Any) -> Prompt:
    """Page n of a chat is the same in all of its prompts."""
    own = number if chat is None else chat
    output = changes.pop("output_length", 11)
    answered = num_tokens + output - 1
    fields: dict[str, Any] = {
        "conversation": own,
        "turn": 1,
        "pages": tuple(1000 * own + page for page in range(num_tokens // PAGE)),
        "num_readable": (num_tokens - 1) // PAGE,
        "after": tuple(1000 * own + page for page in range(answered // PAGE)),
        **changes,
    }
    return Prompt(number=number, num_tokens=num_tokens, output_length=output, **fields)


def timed(*prompts: Prompt) -> Load:
    return Load(prompts=prompts, page_size=PAGE, sharing="as_timed")


def config(**changes: Any) -> ClusterConfig:
    return ClusterConfig(**{"network_gbps": 1e6, "l3_gbps": 1e6, **changes})


def simulate(load: Load, costs: Profile | None = None, **changes: Any) -> Run:
    return Cluster(config(**changes), costs or profile(), load).run()


def sample(one: Served) -> Sample:
    """What a server that took as long would have shown."""
    gap = one.tpot_s or 0.0
    return Sample(
        conversation=one.conversation,
        turn=one.turn,
        sent_at=one.at_s,
        ended_at=one.at_s + one.e2e_s,
        queued_s=0.0,
        ttft_s=one.ttft_s,
        itl_s=(gap,) * (one.output_tokens - 1),
        prompt_tokens=one.prompt_tokens,
        completion_tokens=one.output_tokens,
        reusable_tokens=one.prompt_tokens if one.turn > 1 else 0,
        cached_tokens=one.prompt_tokens - one.found.computed,
        sources=Sources(
            computed=one.usage.computed,
            device=one.usage.device,
            host=one.usage.host,
            storage=one.usage.storage,
            transfer_skipped=one.held_tokens,
            storage_by_prefill=one.usage.storage_by_prefill,
            storage_by_decode=one.usage.storage_by_decode,
        ),
        fallback=None,
    )


def report(samples: Sequence[Sample]) -> Report:
    return Report(
        title="made up",
        command="kvloop bench",
        version="0",
        hardware="none",
        started_at="2026-01-01T00:00:00+00:00",
        duration_s=1.0,
        server=Server(url="http://127.0.0.1:1", model="m", name="kvloop"),
        workload={"kind": "multi-turn"},
        ceiling=None,
        arms=(),
        samples=tuple(samples),
    )

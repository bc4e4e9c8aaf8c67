"""What one request showed in the simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from kvloop.benchmark.simulate.job import Job
from kvloop.shared_cache.hicache_parts import PageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Prompt tokens by where their KV came from."""

    device: int = 0
    host: int = 0
    storage_by_prefill: int = 0
    storage_by_decode: int = 0
    computed: int = 0

    @property
    def storage(self) -> int:
        """From L3, whoever wrote them."""
        return self.storage_by_prefill + self.storage_by_decode

    @property
    def total(self) -> int:
        """Of the prompt."""
        return self.device + self.host + self.storage + self.computed

    @property
    def hit_rate(self) -> float:
        """Share that was not computed."""
        return 1 - self.computed / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One answered request. Seconds; `at_s` is of the simulation's clock."""

    number: int
    conversation: int
    turn: int
    prefill: int
    decode: int
    at_s: float
    prompt_tokens: int
    output_tokens: int
    found: Tokens
    """Where prefill had its pages."""
    usage: Tokens
    """The same less what decode held: as the nodes report it."""
    held_tokens: int
    """Of those found, how many decode had too: they were not sent."""
    ttft_s: float
    tpot_s: float | None
    """None of a single token."""
    e2e_s: float
    reserve_s: float
    """Waiting for decode's pages."""
    queue_s: float
    """Waiting for prefill: others' computing, and pages from L3."""
    compute_s: float
    send_s: float
    """From the last layer's end to all KV being with decode."""


def served(job: Job, page_size: int, now: float) -> Served:
    """A job that has ended."""
    assert job.reserved_at is not None and job.computing_at is not None
    assert job.computed_at is not None and job.first_at is not None
    prompt, num = job.prompt, job.prompt.output_length
    found = count_tokens(job.sources, page_size, prompt.num_tokens)
    cached = found.total - found.computed
    return Served(
        number=prompt.number,
        conversation=prompt.conversation,
        turn=prompt.turn,
        prefill=job.prefill,
        decode=job.decode,
        at_s=job.arrived_at,
        prompt_tokens=prompt.num_tokens,
        output_tokens=num,
        found=found,
        usage=count_tokens(job.sources, page_size, prompt.num_tokens, first=job.num_held),
        held_tokens=min(job.num_held * page_size, cached),
        ttft_s=job.first_at - job.arrived_at,
        tpot_s=(now - job.first_at) / (num - 1) if num > 1 else None,
        e2e_s=now - job.arrived_at,
        reserve_s=job.reserved_at - job.arrived_at,
        queue_s=job.computing_at - job.reserved_at,
        compute_s=job.computed_at - job.computing_at,
        send_s=job.first_at - job.computed_at,
    )


def count_tokens(
    sources: Sequence[PageSource], page_size: int, num_tokens: int, first: int = 0
) -> Tokens:
    """`sources` are those of the leading pages, which count from `first` on.

    The last page may not be full.
    """
    counts = dict.fromkeys(("device", "host", "prefill", "decode"), 0)
    for index in range(first, len(sources)):
        counts[sources[index]] += min(page_size, num_tokens - index * page_size)
    return Tokens(
        device=counts["device"],
        host=counts["host"],
        storage_by_prefill=counts["prefill"],
        storage_by_decode=counts["decode"],
        computed=num_tokens - min(len(sources) * page_size, num_tokens),
    )


def add_tokens(parts: Sequence[Tokens]) -> Tokens:
    """Their sum."""
    return Tokens(
        **{field.name: sum(getattr(part, field.name) for part in parts) for field in fields(Tokens)}
    )

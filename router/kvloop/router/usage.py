"""The `usage` block: what a request cost and where its prompt's KV came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kvloop.router.answers import Answer
from kvloop.shared_cache.wire import PromptSources


def usage_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """Usage of all prompts of a request together; of an answer that has not ended: so far."""
    prompt = sum(len(answer.job.prompt) for answer in answers)
    completion = sum(completion_tokens(answer) for answer in answers)
    cached = sum(cached_tokens(answer.started.sources) for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "kvloop": kvloop_of(answers),
    }


def completion_tokens(answer: Answer) -> int:
    """Tokens sampled, a stop token included."""
    return len(answer.ids) if answer.end is None else answer.end.completion_tokens


def cached_tokens(sources: PromptSources) -> int:
    """Prompt tokens that were not computed."""
    return sources.device + sources.host + sources.storage + sources.transfer_skipped


def kvloop_of(answers: Sequence[Answer]) -> dict[str, Any]:
    """Where the prompts' KV came from: sums; names joined by commas where they differ."""
    total = [answer.started.sources for answer in answers]
    names = ("computed", "device", "host", "storage", "transfer_skipped")
    sums: dict[str, Any] = {name: sum(getattr(s, name) for s in total) for name in names}
    sums["by_writer"] = {
        "prefill": sum(s.storage_by_prefill for s in total),
        "decode": sum(s.storage_by_decode for s in total),
    }
    sums["prefill_node"] = _joined(answer.started.prefill_node for answer in answers)
    sums["decode_node"] = _joined(answer.started.decode_node for answer in answers)
    sums["fallback"] = _joined(answer.started.fallback for answer in answers)
    return sums


def _joined(values: Iterable[str | None]) -> str | None:
    return ",".join(sorted({value for value in values if value is not None})) or None

"""The `usage` object of an answer, as this command shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens; `computed` to `transfer_skipped` sum to `prompt_tokens`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    computed: int = 0
    device: int = 0
    host: int = 0
    storage: int = 0
    transfer_skipped: int = 0
    by_prefill: int = 0
    by_decode: int = 0
    fallback: str | None = None


def parse_usage(body: Mapping[str, Any]) -> Usage:
    """Read OpenAI's object with the `kvloop` block; what is absent counts 0."""
    block: Mapping[str, Any] = body.get("kvloop") or {}
    writers: Mapping[str, Any] = block.get("by_writer") or {}
    return Usage(
        prompt_tokens=body.get("prompt_tokens", 0),
        completion_tokens=body.get("completion_tokens", 0),
        computed=block.get("computed", 0),
        device=block.get("device", 0),
        host=block.get("host", 0),
        storage=block.get("storage", 0),
        transfer_skipped=block.get("transfer_skipped", 0),
        by_prefill=writers.get("prefill", 0),
        by_decode=writers.get("decode", 0),
        fallback=block.get("fallback"),
    )

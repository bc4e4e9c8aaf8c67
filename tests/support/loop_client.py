"""Asks a running kvloop for token-exact answers through its OpenAI endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from running import fetch


@dataclass(frozen=True)
class Answer:
    ids: list[int]
    sources: dict[str, Any]
    """The `kvloop` block of usage."""
    prompt: list[int]

    @property
    def by_decode(self) -> int:
        return int(self.sources["by_writer"]["decode"])

    @property
    def by_prefill(self) -> int:
        return int(self.sources["by_writer"]["prefill"])

    @property
    def history(self) -> list[int]:
        return self.prompt + self.ids


def complete(
    url: str, prompt: Sequence[int], max_tokens: int = 64, cache: str = "on", **fields: Any
) -> Answer:
    """One greedy answer of exactly `max_tokens` tokens."""
    body = {
        "model": "m",
        "prompt": list(prompt),
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        "kvloop": {"cache": cache},
        **fields,
    }
    status, reply = fetch(f"{url}/v1/completions", body)
    assert status == 200, (status, reply)
    sources = reply["usage"]["kvloop"]
    parts = ("computed", "device", "host", "storage", "transfer_skipped")
    assert sum(sources[part] for part in parts) == len(prompt), sources
    return Answer(reply["choices"][0]["token_ids"], sources, list(prompt))


def complete_all(
    url: str, prompts: Sequence[Sequence[int]], at_once: int = 8, **fields: Any
) -> list[Answer]:
    """Answers in order, `at_once` requests in flight."""
    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(lambda prompt: complete(url, prompt, **fields), prompts))

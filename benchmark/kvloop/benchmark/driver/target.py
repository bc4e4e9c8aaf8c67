"""The server, and how it is spoken to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.workloads.plan import Content
from kvloop.shared_cache.errors import ConfigError

Salting = Literal["field", "prompt"]
"""Where a segment's salt goes: the field `cache_salt`, or the head of every prompt."""
PATHS: Mapping[Content, str] = {
    "token-ids": "/v1/completions",
    "text": "/v1/chat/completions",
}

DROPPABLE = frozenset(
    {
        *("model", "max_tokens", "temperature", "ignore_eos", "stream_options"),
        *("return_token_ids", "cache_salt"),
    }
)
"""Usual fields without which a request still says something, and is streamed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Fields are the command's flags."""

    url: str
    """Without a slash at its end."""
    model: str
    api_key: str | None = None
    content: Content = "token-ids"
    salting: Salting = "field"
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Fields of every request beside or instead of the usual ones."""
    dropped_fields: frozenset[str] = frozenset()
    """Usual fields that are left out, for servers that refuse them."""
    arm_bodies: Mapping[Arm, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of the requests of an arm, instead of kvloop's own for it."""

    def __post_init__(self) -> None:
        unknown = sorted(self.dropped_fields - DROPPABLE)
        if unknown:
            raise ConfigError(
                f"--drop-field {unknown[0]}: must be one of {', '.join(sorted(DROPPABLE))}"
            )
        if "cache_salt" in self.dropped_fields and self.salting == "field":
            raise ConfigError(
                "--drop-field cache_salt leaves nothing that keeps the arms apart: add --salting "
                "prompt"
            )

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return self.url + PATHS[self.content]

    @property
    def headers(self) -> dict[str, str]:
        return auth_headers(self.api_key)


def auth_headers(api_key: str | None) -> dict[str, str]:
    """The header that carries an API key, if there is one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}

"""What one look at a SharedCache found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kvloop.operator.types.shared_cache import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """For condition Ready."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of the status."""

    endpoint: str = ""
    capacity_bytes: int | None = None
    used_bytes: int | None = None
    replicas: int = 0
    ready_replicas: int = 0
    selector: str = ""
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """All of it."""

    verdict: Verdict
    figures: Figures = field(default_factory=Figures)


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterView:
    """What a Mooncake master says over HTTP."""

    leads: bool
    capacity_bytes: int
    used_bytes: int


Pods = tuple[Mapping[str, Any], ...]

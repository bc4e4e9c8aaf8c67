"""An exchange as a Sample, a bad answer as a Failure. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.driver.api import Exchange
from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.sample import Failure, Sample, Sources, parse_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which request of the run."""

    conversation: int
    turn: int
    """Its parent's first turns counted."""
    arm: Arm
    step: int
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was meant to be sent, and when; of `time.monotonic`."""

    due_at: float
    ready_at: float
    """When it only waited for its turn among `max_in_flight`, or for a Retry-After."""
    output_length: int
    reusable_tokens: int


def to_sample(place: Place, plan: Plan, exchange: Exchange, start: float) -> Sample:
    """Times from the run's `start`; raises BadAnswer where the usage cannot be counted with."""
    usage, answer = exchange.usage, exchange.answer
    num_completed = _count(usage.get("completion_tokens"), "completion_tokens")
    return Sample(
        conversation=place.conversation,
        turn=place.turn,
        arm=place.arm,
        step=place.step,
        round=place.round,
        sent_at=_round(exchange.sent_at - start),
        ended_at=_round(exchange.ended_at - start),
        queued_s=_round(max(exchange.sent_at - plan.ready_at, 0.0)),
        late_s=_round(max(exchange.sent_at - plan.due_at, 0.0)),
        ttft_s=_round(exchange.ttft_s),
        itl_s=tuple(map(_round, answer.gaps())),
        prompt_tokens=_count(usage.get("prompt_tokens"), "prompt_tokens"),
        completion_tokens=num_completed,
        reusable_tokens=plan.reusable_tokens,
        cached_tokens=_cached(usage),
        sources=_sources(usage),
        fallback=_object(usage, "kvloop").get("fallback"),
        is_short=num_completed < plan.output_length,
        answer_digest=answer.digest,
    )


def _round(seconds: float) -> float:
    """To microseconds: more digits are noise, and half of a report's size."""
    return round(seconds, 6)


def to_failure(place: Place, error: BadAnswer, at_s: float) -> Failure:
    """At so many seconds from the run's start."""
    return Failure(
        conversation=place.conversation,
        turn=place.turn,
        arm=place.arm,
        step=place.step,
        round=place.round,
        kind=error.kind,
        message=str(error),
        at_s=at_s,
    )


def _count(value: Any, name: str) -> int:
    if not isinstance(value, int) or value < 0:
        raise BadAnswer("bad_usage", f"usage.{name} must be a number of tokens, got {value!r}")
    return value


def _cached(usage: Mapping[str, Any]) -> int | None:
    value = _object(usage, "prompt_tokens_details").get("cached_tokens")
    return None if value is None else _count(value, "prompt_tokens_details.cached_tokens")


def _sources(usage: Mapping[str, Any]) -> Sources | None:
    try:
        return parse_sources(usage)
    except (TypeError, ValueError, AttributeError) as error:
        raise BadAnswer("bad_usage", f"usage.kvloop: {error}") from error


def _object(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = usage.get(name)
    return value if isinstance(value, Mapping) else {}

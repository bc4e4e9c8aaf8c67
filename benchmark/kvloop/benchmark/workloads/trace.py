"""A trace's requests as a load: who asks when, how much, and which prefixes they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from kvloop.benchmark.replay.trace import PAGE_TOKENS, Request, working_set
from kvloop.benchmark.workloads.excerpt import (
    Group,
    common_ids,
    count_reuse,
    first_requests,
    group_requests,
    pick_conversations,
    without_longer,
)
from kvloop.benchmark.workloads.plan import Ceiling, Content, Conversation, Message, Said, Turn
from kvloop.benchmark.workloads.trace_lines import TimedTrace, read_timed_trace
from kvloop.benchmark.workloads.trace_prompts import Blocks, count_ceiling, draw_prompt
from kvloop.benchmark.workloads.trace_scale import Scale, fit_scale
from kvloop.benchmark.workloads.words import WORDS, new_random
from kvloop.shared_cache.errors import ConfigError

Choose = Literal["first", "conversation"]

_TEMPLATE_TOKENS = 64
"""Kept free in text for what the server's chat template adds."""
_SERVER_PAGE = 16
"""Tokens of a page in most servers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """Fields are the command's flags; raises ConfigError naming the one that is wrong."""

    trace: Path
    context: int | None = None
    """Tokens that the model takes, prompt and answer together."""
    time_scale: float = 1.0
    """2: requests come twice as fast as they did."""
    block_tokens: int | None = None
    """Tokens for each id; None: as many as let the longest request fit, 512 at most."""
    limit: int | None = None
    """Requests; None: all."""
    choose: Choose = "conversation"
    min_reuse: float = 0.35
    """Of the ids of the requests chosen by conversation, the share that comes again."""
    longest: int | None = None
    """Conversations with a prompt of more tokens, by the trace's count, are left out."""
    max_output: int | None = None
    is_strict: bool = False
    content: Content = "token-ids"
    id_range: tuple[int, int] = (1000, 20000)
    seed: int = 0

    @property
    def draws(self) -> bool:
        """Whether conversations are drawn, so that `min_reuse` counts."""
        return self.choose == "conversation" and self.limit is not None

    def __post_init__(self) -> None:
        for name in ("context", "time_scale", "block_tokens", "limit", "longest", "max_output"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"--{name.replace('_', '-')} must be above 0, got {value}")
        if not 0 <= self.min_reuse <= 1:
            raise ConfigError(f"--min-reuse must be from 0 to 1, got {self.min_reuse}")
        low, high = self.id_range
        if not 0 <= low < high - 1:
            raise ConfigError(
                f"--id-range must be LOW:HIGH and hold two ids or more, got {low}:{high}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A `Workload`: each group of requests that share a prefix is one conversation."""

    options: TraceOptions
    requests: tuple[tuple[Request, ...], ...]
    """By conversation, in time order."""
    conversations: tuple[Conversation, ...]
    scale: Scale
    blocks: Blocks
    ceiling: Ceiling
    about: dict[str, Any]
    """What the flags came to."""
    warnings: tuple[str, ...]
    """What a reader of the report must know."""

    @property
    def kind(self) -> str:
        return "trace"

    @property
    def content(self) -> Content:
        return self.options.content

    def say(self, conversation: int, turn: int) -> Said:
        """The whole prompt; negative conversations warm up with words that no request has."""
        if conversation < 0:
            words = self._warm_up(conversation, turn)
        else:
            request = self.requests[conversation][turn - 1]
            words = draw_prompt(self.blocks, self.scale, request)
        if self.content == "text":
            text = " ".join(WORDS[word] for word in words)
            return Said(messages=(Message(role="user", content=text),), is_whole=True)
        low = self.options.id_range[0]
        return Said(ids=tuple(low + word for word in words), is_whole=True)

    def describe(self) -> dict[str, Any]:
        """The flags and what they came to."""
        options = self.options
        return {
            "kind": self.kind,
            "content": self.content,
            "trace": options.trace.name,
            "context": options.context,
            "time_scale": options.time_scale,
            "limit": options.limit,
            "choose": options.choose,
            "min_reuse": options.min_reuse if options.draws else None,
            "longest": options.longest,
            "max_output": options.max_output,
            "strict": options.is_strict,
            "id_range": options.id_range,
            "seed": options.seed,
            **self.about,
        }

    def _warm_up(self, conversation: int, turn: int) -> list[int]:
        length = self.scale.prompt(self.requests[0][0])
        draw = new_random(self.options.seed, "warm-up", conversation, turn)
        return draw.choices(range(_vocabulary(self.options)), k=length)


def load_trace(options: TraceOptions) -> Trace:
    """Read, choose and scale; raises ConfigError naming the flag."""
    trace = read_timed_trace(options.trace, is_strict=options.is_strict)
    groups = _choose(trace, options)
    numbers = sorted(number for group in groups for number in group)
    chosen = [trace.requests[number] for number in numbers]
    scale = fit_scale(
        chosen,
        context=_room(options),
        block_tokens=options.block_tokens,
        max_output=options.max_output,
    )
    requests = tuple(tuple(trace.requests[number] for number in group) for group in groups)
    return Trace(
        options=options,
        requests=requests,
        conversations=tuple(_conversation(group, scale, options) for group in requests),
        scale=scale,
        blocks=Blocks(trace.parents, _vocabulary(options), options.seed),
        ceiling=count_ceiling(scale, chosen),
        about=_about(trace, chosen, requests, scale),
        warnings=trace.problems.warnings + _warnings(options, scale, len(chosen)),
    )


def _choose(trace: TimedTrace, options: TraceOptions) -> tuple[Group, ...]:
    common = common_ids(trace.requests)
    groups = group_requests(trace.requests, common)
    if options.longest is not None:
        groups = without_longer(trace.requests, groups, options.longest)
    num = sum(map(len, groups))
    if not num:
        raise ConfigError(
            f"--longest {options.longest}: every conversation of the trace has a longer prompt"
        )
    limit = num if options.limit is None else options.limit
    if limit >= num:
        return groups
    if options.choose == "first":
        return first_requests(groups, limit)
    return pick_conversations(
        trace.requests,
        groups,
        common,
        limit=limit,
        min_reuse=options.min_reuse,
        seed=options.seed,
    )


def _room(options: TraceOptions) -> int | None:
    if options.context is None or options.content == "token-ids":
        return options.context
    if options.context <= _TEMPLATE_TOKENS:
        raise ConfigError(
            f"--context {options.context}: {_TEMPLATE_TOKENS} tokens of it are kept free for the "
            "chat template; give more, or send token ids"
        )
    return options.context - _TEMPLATE_TOKENS


def _vocabulary(options: TraceOptions) -> int:
    low, high = options.id_range
    return len(WORDS) if options.content == "text" else high - low


def _conversation(requests: Sequence[Request], scale: Scale, options: TraceOptions) -> Conversation:
    return Conversation(
        turns=tuple(
            Turn(
                output_length=scale.output(request),
                at_s=request.at_ms / 1000 / options.time_scale,
            )
            for request in requests
        )
    )


def _about(
    trace: TimedTrace,
    chosen: Sequence[Request],
    requests: Sequence[Sequence[Request]],
    scale: Scale,
) -> dict[str, Any]:
    reuse = count_reuse(chosen)
    return {
        "factor": scale.factor,
        "block_tokens": scale.block_tokens,
        "requests": len(chosen),
        "longest_with_answer": scale.longest(chosen),
        "ids": reuse.ids,
        "different_ids": working_set(chosen),
        "ids_seen_before_share": round(reuse.share, 4),
        "continuations": sum(_continues(*pair) for group in requests for pair in pairwise(group)),
        "requests_of_trace": len(trace.requests),
        "dropped_lines": trace.problems.num,
    }


def _continues(before: Request, after: Request) -> bool:
    """Whether a prompt holds all full blocks of the one before."""
    full = before.pages[: before.num_tokens // PAGE_TOKENS]
    return after.pages[: len(full)] == full


def _warnings(options: TraceOptions, scale: Scale, num: int) -> tuple[str, ...]:
    found = []
    if options.limit is not None and num < options.limit:
        found.append(f"the trace gave {num} requests, and --limit asked for {options.limit}")
    if scale.block_tokens < _SERVER_PAGE:
        found.append(
            f"an id stands for {scale.block_tokens} tokens, fewer than a page of most servers "
            f"({_SERVER_PAGE}): less can be reused than the ceiling says"
        )
    return tuple(found)

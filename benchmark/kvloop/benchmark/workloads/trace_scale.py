"""A trace's lengths, scaled by one factor to what a model takes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from kvloop.benchmark.replay.trace import PAGE_TOKENS, Request
from kvloop.shared_cache.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What stands for a trace's lengths."""

    block_tokens: int
    """Tokens for each id, which stands for 512 in the trace."""
    max_output: int | None = None

    @property
    def factor(self) -> float:
        """All lengths are multiplied by it, and rounded."""
        return self.block_tokens / PAGE_TOKENS

    def prompt(self, request: Request) -> int:
        """Tokens of its prompt: full blocks, and a share of the last one."""
        return -(-request.num_tokens * self.block_tokens // PAGE_TOKENS)

    def output(self, request: Request) -> int:
        """Tokens of its answer, one or more."""
        scaled = max(1, round(request.output_length * self.factor))
        return scaled if self.max_output is None else min(scaled, self.max_output)

    def longest(self, requests: Sequence[Request]) -> int:
        """Tokens of the longest prompt with its answer."""
        return max(self.prompt(request) + self.output(request) for request in requests)


def fit_scale(
    requests: Sequence[Request],
    *,
    context: int | None,
    block_tokens: int | None,
    max_output: int | None,
) -> Scale:
    """The largest blocks, of at most 512 tokens, with which every request fits into `context`.

    `block_tokens` sets them instead; raises ConfigError naming the flag where a request does not
    fit, or where neither is known.
    """

    def scale(tokens: int) -> Scale:
        return Scale(block_tokens=tokens, max_output=max_output)

    if context is None:
        if block_tokens is None:
            raise ConfigError(
                "--context: the server does not say how many tokens its model takes; "
                "give --context N"
            )
        return scale(block_tokens)
    sizes = range(1, PAGE_TOKENS + 1)
    fitting = bisect_right(sizes, context, key=lambda tokens: scale(tokens).longest(requests))
    if block_tokens is not None and scale(block_tokens).longest(requests) > context:
        raise ConfigError(
            f"--block-tokens {block_tokens}: the longest request needs "
            f"{scale(block_tokens).longest(requests)} tokens, and the context has {context}; "
            f"at most {fitting} fit"
        )
    if not fitting:
        raise ConfigError(
            f"--context {context}: the longest request has "
            f"{max(len(request.pages) for request in requests)} ids, which do not fit even as "
            "one token each; leave such requests out with --longest"
        )
    return scale(fitting if block_tokens is None else block_tokens)

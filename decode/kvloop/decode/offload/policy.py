"""Which tokens of a request deserve storing: those that a next turn can repeat; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from kvloop.shared_cache.hicache_names import OffloadPolicy
from kvloop.shared_cache.wire import GenerateRequest, StripRule

SkipReason = Literal["stripped", "session", "behind_hole"]
"""Of full pages that are not stored: the next turn's prompt lacks them; no next turn is expected;
a page before them was given up, and without it they can never be found."""


class Storable:
    """One request's answer as it grows; a call looks only at tokens that are new."""

    def __init__(self, request: GenerateRequest, policy: OffloadPolicy) -> None:
        self._policy, self._strip, self._returns = policy, request.strip, request.returns
        self._num_prompt = len(request.prompt)
        self._num_scanned = 0
        self._opened_at: int | None = None

    @property
    def reason(self) -> SkipReason:
        """Why pages beyond the limit are not stored."""
        return "session" if _ends(self._policy, self._returns) else "stripped"

    def limit(self, output: Sequence[int], *, is_over: bool) -> int | None:
        """Tokens of prompt and answer that deserve storing by what is known now; None: all.

        While the answer goes on what comes behind the limit may deserve it yet.
        """
        strip = self._strip
        looks = strip is not None and strip.kept_prompt is None and self._policy != "all"
        if looks and strip is not None and self._opened_at is None:
            start = max(self._num_scanned - len(strip.opens) + 1, 0)
            self._opened_at = _find(output, strip.opens, start)
            self._num_scanned = len(output)
        return _limit(
            self._num_prompt,
            output,
            strip,
            self._policy,
            self._returns,
            opened_at=self._opened_at,
            is_over=is_over,
        )


def storable_tokens(
    num_prompt: int,
    output: Sequence[int],
    strip: StripRule | None,
    policy: OffloadPolicy,
    returns: bool | None,
    *,
    is_over: bool = True,
) -> int | None:
    """As `Storable.limit`, of a whole answer at once."""
    opened_at = _find(output, strip.opens, 0) if strip is not None else None
    return _limit(num_prompt, output, strip, policy, returns, opened_at=opened_at, is_over=is_over)


def _limit(
    num_prompt: int,
    output: Sequence[int],
    strip: StripRule | None,
    policy: OffloadPolicy,
    returns: bool | None,
    *,
    opened_at: int | None,
    is_over: bool,
) -> int | None:
    if policy == "all":
        return None
    if _ends(policy, returns):
        return 0
    if strip is None:
        return None
    if strip.kept_prompt is not None:
        kept, inside = min(strip.kept_prompt, num_prompt), 0
    elif opened_at is not None:
        kept, inside = num_prompt + opened_at, opened_at + len(strip.opens)
    else:
        return None
    if is_over and strip.closes and _find(output, strip.closes, inside) is None:
        return None  # the template repeats a block that was never closed
    return kept


def _ends(policy: OffloadPolicy, returns: bool | None) -> bool:
    return policy == "selective" and returns is False


def _find(tokens: Sequence[int], wanted: Sequence[int], start: int) -> int | None:
    """Where `wanted` begins first, from `start` on; None where it does not, or is empty."""
    size = len(wanted)
    if not size:
        return None
    for at in range(start, len(tokens) - size + 1):
        if tokens[at] == wanted[0] and tuple(tokens[at : at + size]) == tuple(wanted):
            return at
    return None

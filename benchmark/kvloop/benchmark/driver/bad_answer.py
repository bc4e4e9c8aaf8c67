"""The one exception of a request that failed."""

from __future__ import annotations

Kind = str
"""Short and countable: `http_429`, `connect`, `disconnect`, `timeout`, `stalled`, `truncated`,
`stream_error`, `bad_event`, `not_streamed`, `empty`, `no_usage`, `bad_usage`, `no_token_ids`,
`too_long`."""
LOST: frozenset[Kind] = frozenset({"connect", "disconnect", "stalled"})
"""Kinds that a server which is gone, or hangs, causes."""


class BadAnswer(Exception):
    """The answer is no whole answer; `kind` is what a report counts."""

    def __init__(self, kind: Kind, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s
        """What the server asked for; None: nothing."""

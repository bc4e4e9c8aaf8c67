"""Reads one streamed OpenAI answer. Pure: bytes and times in, an answer out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


class BadAnswer(Exception):
    """The answer is no whole answer; `kind` is what a report counts."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(slots=True)
class StreamedAnswer:
    """Grows with each line; `finish` checks that it is whole."""

    ids: list[int] = field(default_factory=list)
    prompt_ids: list[int] = field(default_factory=list)
    """From servers that return them with the first chunk."""
    text: str = ""
    usage: dict[str, Any] | None = None
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When tokens came, and how many at once."""
    is_done: bool = False

    def add_line(self, line: bytes, at: float) -> None:
        """Take one line of the event stream; raises BadAnswer for an error event."""
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self.is_done = True
            return
        try:
            event = json.loads(data)
        except ValueError as error:
            raise BadAnswer("bad_event", f"an event is no JSON: {data[:200]!r}") from error
        if event.get("error"):
            raise BadAnswer("stream_error", str(event["error"])[:500])
        self._add_event(event, at)

    def _add_event(self, event: dict[str, Any], at: float) -> None:
        if event.get("usage"):
            self.usage = event["usage"]
        for choice in event.get("choices") or ():
            ids = choice.get("token_ids") or []
            self.prompt_ids = self.prompt_ids or choice.get("prompt_token_ids") or []
            text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            if ids or text:
                self.arrivals.append((at, len(ids) or 1))
            self.ids += ids
            self.text += text

    def finish(self) -> dict[str, Any]:
        """Return the usage of a whole answer; raises BadAnswer."""
        if not self.is_done:
            raise BadAnswer("truncated", "the stream ended before [DONE]")
        if self.usage is None:
            raise BadAnswer("no_usage", "the server sent no usage (stream_options.include_usage)")
        if not self.arrivals:
            raise BadAnswer("empty", "the answer has no token")
        return self.usage

    def gaps(self) -> tuple[float, ...]:
        """Seconds between tokens; tokens that came together share the time since the last."""
        gaps: list[float] = []
        for (before, _), (at, num) in zip(self.arrivals, self.arrivals[1:], strict=False):
            gaps += [(at - before) / num] * num
        return tuple(gaps)

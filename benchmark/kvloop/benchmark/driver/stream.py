"""Reads one streamed OpenAI answer. Pure: bytes and times in, an answer out."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

from kvloop.benchmark.driver.bad_answer import BadAnswer


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    """A thinking model's tokens are tokens."""
    reasoning: str | None = None
    """The same, as newer servers call it."""


_Id = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    token_ids: list[_Id] | None = None
    prompt_token_ids: list[int] | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_EVENTS = msgspec.json.Decoder(_Event)


@dataclass(slots=True)
class StreamedAnswer:
    """Grows with each block of bytes; `finish` checks that it is whole."""

    ids: list[int] = field(default_factory=list)
    prompt_ids: list[int] = field(default_factory=list)
    """From servers that return them with the first chunk."""
    usage: dict[str, Any] | None = None
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When tokens came, and how many at once."""
    ended_at: float = 0.0
    """When its last event came."""
    is_done: bool = False
    _texts: list[str] = field(default_factory=list)
    _tail: bytes = b""
    _heard_at: float = 0.0

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def digest(self) -> str:
        """Of the ids, or of the text where there are none."""
        said = array("q", self.ids).tobytes() if self.ids else self.text.encode()
        return blake2b(said, digest_size=8).hexdigest()

    def add_block(self, block: bytes, at: float) -> None:
        """Take bytes as they came, cut anywhere; raises BadAnswer for an error event."""
        self._heard_at = at
        *lines, self._tail = (self._tail + block).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._add_data(line[5:].strip(), at)

    def finish(self) -> dict[str, Any]:
        """Return the usage of a whole answer; raises BadAnswer."""
        self.add_block(b"\n", self._heard_at)  # its last line may lack its end
        if not self.is_done:
            raise BadAnswer("truncated", "the stream ended before [DONE]")
        if self.usage is None:
            raise BadAnswer(
                "no_usage",
                "the stream had no usage: the server must know stream_options.include_usage; if "
                "it has a field of its own for it, give that with --extra-body JSON",
            )
        if not self.arrivals:
            raise BadAnswer("empty", "the answer has no token")
        return self.usage

    def gaps(self) -> tuple[float, ...]:
        """Seconds between tokens; tokens that came together share the time since the last."""
        gaps: list[float] = []
        for (before, _), (at, num) in zip(self.arrivals, self.arrivals[1:], strict=False):
            gaps += [(at - before) / num] * num
        return tuple(gaps)

    def _add_data(self, data: bytes, at: float) -> None:
        self.ended_at = at
        if data == b"[DONE]":
            self.is_done = True
            return
        try:
            event = _EVENTS.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadAnswer("bad_event", f"{error}: {data[:200]!r}") from error
        if event.error:
            raise BadAnswer("stream_error", str(event.error)[:500])
        if event.usage:
            self.usage = event.usage
        for choice in event.choices or ():
            self._add_choice(choice, at)

    def _add_choice(self, choice: _Choice, at: float) -> None:
        ids = choice.token_ids or []
        text, thought = choice.text or "", ""
        if choice.delta is not None:
            text = choice.delta.content or ""
            thought = choice.delta.reasoning_content or choice.delta.reasoning or ""
        if ids or text or thought:
            self.arrivals.append((at, len(ids) or 1))
        self.prompt_ids = self.prompt_ids or choice.prompt_token_ids or []
        self.ids += ids
        self._texts.append(text)


def read_blocks(blocks: Sequence[tuple[float, bytes]]) -> StreamedAnswer:
    """Read a stream that is over; each block with the time at which it came."""
    answer = StreamedAnswer()
    for at, block in blocks:
        answer.add_block(block, at)
    return answer

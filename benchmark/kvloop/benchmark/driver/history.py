"""What one conversation has said and heard, and how much of it a cache may still have. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.heads import Messages
from kvloop.benchmark.driver.stream import StreamedAnswer
from kvloop.benchmark.workloads.plan import Content, Said

NO_TOKEN_IDS = (
    "the server returned no token ids (it must know return_token_ids), so the history cannot be "
    "sent on: use --text"
)


class History(Protocol):
    """Grows by what is said and what is answered."""

    def say(self, said: Said) -> Any:
        """Add a turn's words; returns the prompt."""

    def hear(self, said: Said, answer: StreamedAnswer) -> None:
        """Add the answer, or the recorded one; raises BadAnswer where it cannot be sent on."""

    def num_repeated(self, said: Said) -> int | None:
        """Ids at the start of the prompt `said` that the turn before had, its answer included;
        None where this is not a matter of ids, or goes without saying: the whole history."""

    def copy(self) -> Self:
        """For a branch."""


class IdHistory:
    """Exact token ids: nothing is tokenized twice."""

    def __init__(self, ids: Sequence[int] = ()) -> None:
        self._ids = list(ids)

    def say(self, said: Said) -> list[int]:
        if said.is_whole:
            self._ids = []
        self._ids += said.ids
        return list(self._ids)

    def hear(self, said: Said, answer: StreamedAnswer) -> None:
        if not answer.ids and not said.is_whole:
            raise BadAnswer("no_token_ids", NO_TOKEN_IDS)
        self._ids += answer.ids

    def num_repeated(self, said: Said) -> int | None:
        return num_equal(self._ids, said.ids) if said.is_whole else None

    def copy(self) -> IdHistory:
        return IdHistory(self._ids)


class TextHistory:
    """Chat messages: the server applies its template."""

    def __init__(self, messages: Sequence[dict[str, str]] = ()) -> None:
        self._messages = list(messages)

    def say(self, said: Said) -> Messages:
        if said.is_whole:
            self._messages = []
        self._messages += [{"role": one.role, "content": one.content} for one in said.messages]
        return list(self._messages)

    def hear(self, said: Said, answer: StreamedAnswer) -> None:
        content = answer.text if said.answer is None else said.answer
        self._messages.append({"role": "assistant", "content": content})

    def num_repeated(self, said: Said) -> int | None:
        return 0 if said.is_whole else None

    def copy(self) -> TextHistory:
        return TextHistory(self._messages)


def new_history(content: Content) -> IdHistory | TextHistory:
    """Of that kind of content, empty."""
    return TextHistory() if content == "text" else IdHistory()


def num_equal(left: Sequence[int], right: Sequence[int]) -> int:
    """Equal items at the start of both."""
    left, right = tuple(left), tuple(right)  # a list never equals a tuple
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    # Slices are compared in C: a search by halves is far cheaper than a walk.
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low

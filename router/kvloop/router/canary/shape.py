"""How long a canary's turns are: enough full pages of prompt and answer, in what room there is."""

from __future__ import annotations

from dataclasses import dataclass

_SIZES = ((3, 8), (2, 5), (1, 2))
"""Full pages of the prompt, and of prompt and answer; the best proof first."""
_QUESTION, _SECOND_ANSWER = 3, 4
"""Tokens of turn 2; fewer where pages are tiny: it is to fill no further page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatShape:
    """Tokens of both turns. The last sampled token has no KV; without it turn 1 ends a page."""

    page_size: int
    prompt: int
    answer: int
    question: int
    """What turn 2's prompt adds to turn 1's prompt and answer."""
    second_answer: int
    note: str | None = None
    """Why the proof is weaker than it could be."""

    @property
    def prompt_pages(self) -> int:
        """Full pages of turn 1's prompt: prefill computes them, and decode receives them."""
        return self.prompt // self.page_size

    @property
    def num_pages(self) -> int:
        """Full pages of turn 1."""
        return (self.prompt + self.answer - 1) // self.page_size

    @property
    def decode_pages(self) -> int:
        """Those that decode fills: the answer's, and the one between prompt and answer."""
        return self.num_pages - self.prompt_pages

    @property
    def longest(self) -> int:
        """Tokens of turn 2, answer included."""
        return self.prompt + self.answer + self.question + self.second_answer


def fit(page_size: int, room: int) -> ChatShape | None:
    """The longest chat that `room` tokens hold; None where not even the shortest fits."""
    for prompt_pages, num_pages in _SIZES:
        shape = _shape(page_size, prompt_pages, num_pages)
        if shape.longest <= room:
            return shape
    return None


def shortest(page_size: int) -> int:
    """Tokens that the shortest chat needs."""
    return _shape(page_size, *_SIZES[-1]).longest


def _shape(page_size: int, prompt_pages: int, num_pages: int) -> ChatShape:
    # Half a page more, so that one page lies across prompt and answer.
    prompt = prompt_pages * page_size + page_size // 2
    shape = ChatShape(
        page_size=page_size,
        prompt=prompt,
        answer=num_pages * page_size - prompt + 1,
        question=max(min(_QUESTION, page_size // 4), 1),
        second_answer=max(min(_SECOND_ANSWER, page_size // 2), 1),
        note=None
        if (prompt_pages, num_pages) == _SIZES[0]
        else f"the context is short: a chat of {num_pages} pages instead of {_SIZES[0][1]}",
    )
    assert shape.num_pages == num_pages and shape.prompt_pages == prompt_pages
    return shape

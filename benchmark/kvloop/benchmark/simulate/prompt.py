"""What is sent to the simulated cluster: prompts as page numbers, and when each is due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sharing = Literal["as_traced", "as_timed"]
"""From when on a page can be found: as_traced: from the arrival of a prompt that has it, so that
hits are what the trace says, however fast the cluster; as_timed: when it has really been computed
(decode's pages: stored)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One request. Equal page numbers are equal pages with equal pages before them."""

    number: int
    """Its place in the load."""
    conversation: int
    turn: int
    """From 1."""
    pages: tuple[int, ...]
    """Those that can be shared, from the first on."""
    num_readable: int
    """Of those, how many may be found instead of computed."""
    num_tokens: int
    output_length: int
    after: tuple[int, ...] = ()
    """All pages that are full when it has been answered; empty: no more than the prompt's."""
    at_s: float = 0.0
    """Not before this time."""
    follows: int | None = None
    """Number of the prompt whose answer comes before it."""
    delay_s: float = 0.0
    """From that answer's end on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Prompts in the order of their numbers."""

    prompts: tuple[Prompt, ...]
    page_size: int
    sharing: Sharing

    @property
    def most_pages(self) -> int:
        """Of one prompt."""
        return max(-(-prompt.num_tokens // self.page_size) for prompt in self.prompts)

    @property
    def working_set(self) -> int:
        """Different pages of all prompts."""
        return len({page for prompt in self.prompts for page in prompt.pages})

    def tokens(self, prompt: Prompt, num_pages: int) -> int:
        """Tokens of its leading pages."""
        return min(num_pages * self.page_size, prompt.num_tokens)

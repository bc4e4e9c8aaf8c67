"""Token ids to text, piece by piece, never cutting a character in two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
"""What a decoder shows for bytes that are not (yet) UTF-8."""


class Detokenizer:
    """Turns a growing list of ids into text; the pieces and the flush join to `decode(ids)`.

    The ids of a window are decoded after those of a few earlier ones, because some decoders treat a
    sequence's first token differently (a leading blank is dropped). Trailing replacement characters
    may be an unfinished character and are held back.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._window: list[int] = []
        self._shown = 0
        """Characters of context and window that are out."""

    def push(self, token: int) -> str:
        """Text that became certain with this token; often empty or several characters."""
        self._window.append(token)
        text = self._decode(self._context + self._window)
        certain = len(text.rstrip(REPLACEMENT))
        piece = text[self._shown : certain]
        if piece:
            self._shown = certain
        if certain == len(text) and piece:
            self._context, self._window = self._window, []
            self._shown = len(self._decode(self._context))
        return piece

    def flush(self) -> str:
        """The rest: bytes that never became a character, as the decoder shows them."""
        text = self._decode(self._context + self._window)
        piece = text[self._shown :]
        self._shown = len(text)
        return piece

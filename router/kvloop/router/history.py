"""The tokens that past answers really had, so that the next turn's prompt repeats them exactly.

Text tokenized again may give other ids than those that were generated; then every page after the
first difference would miss. Only digests of the text and the ids are kept.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kvloop.router.tokenizer import Message


class Known(NamedTuple):
    """A remembered beginning of a chat; `num_prompt` of its ids came before the last answer."""

    ids: Sequence[int]
    num_prompt: int


class History:
    """LRU memory of (seed, messages up to an answer) -> ids; bounded by ids in all; thread-safe."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self._known: OrderedDict[bytes, tuple[array[int], int]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(
        self,
        seed: bytes | None,
        messages: Sequence[Message],
        prompt: Sequence[int],
        answer: Sequence[int],
    ) -> None:
        """`messages` end with the answer; its ids come without the token that ended it."""
        *_, digest = _digests(seed, messages)
        ids = array("I", prompt)
        ids.extend(answer)
        with self._lock:
            self._drop(digest)
            self._known[digest] = (ids, len(prompt))
            self._num_tokens += len(ids)
            while self._num_tokens > self._max_tokens:
                self._drop(next(iter(self._known)))

    def find(self, seed: bytes | None, messages: Sequence[Message]) -> Known | None:
        """The longest beginning of the chat that ends in an answer of ours."""
        digests = list(_digests(seed, messages))
        with self._lock:
            for message, digest in zip(reversed(messages), reversed(digests), strict=True):
                if message["role"] == "assistant" and digest in self._known:
                    self._known.move_to_end(digest)
                    return Known(*self._known[digest])
        return None

    def clear(self) -> int:
        """Forget all; returns how many answers were known."""
        with self._lock:
            count = len(self._known)
            self._known.clear()
            self._num_tokens = 0
        return count

    def _drop(self, digest: bytes) -> None:
        entry = self._known.pop(digest, None)
        if entry is not None:
            self._num_tokens -= len(entry[0])


def _digests(seed: bytes | None, messages: Sequence[Message]) -> Iterator[bytes]:
    """A chained digest after each message."""
    digest = hashlib.sha256(b"kvloop-history-1" + (seed or b"")).digest()
    for message in messages:
        step = hashlib.sha256(digest)
        for field in ("role", "name", "content"):
            data = str(message.get(field, "")).encode()
            step.update(len(data).to_bytes(8, "little") + data)
        digest = step.digest()
        yield digest

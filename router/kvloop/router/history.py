"""The tokens that past answers really had, so that the next turn's prompt repeats them exactly.

Text tokenized again may give other ids than those that were generated; then every page after the
first difference would miss. Only digests of the text and the ids are kept.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from kvloop.router.tokenizer import Message

_FIELDS = ("role", "name", "content")
_ENTRY_TOKENS = 128
"""What an entry takes beside its ids, as ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A chat up to an answer of ours: the ids of its prompt, then those of the answer."""

    ids: array[int]
    num_prompt: int
    prompt_chars: int
    """Length of the text that the prompt's ids stand for."""
    prompt_digest: bytes
    """Of that text: see `text_digest`."""
    num_messages: int
    """The answer included."""
    parent: int
    """As many messages of the same chat have an entry whose ids this prompt begins with; 0: it was
    tokenized anew."""
    drifted: bool
    """Whether the prompt's ids differ from those of its text tokenized anew."""

    @property
    def answer(self) -> array[int]:
        """Its ids, without the token that ended it."""
        return self.ids[self.num_prompt :]


class History:
    """LRU memory of digest (see `chat_digests`) -> chat; bounded by ids in all; thread-safe."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, digest: bytes, known: Known, parent: bytes | None = None) -> None:
        """Remember; `parent` is the digest of the entry that this one repeats: it may go first."""
        with self._lock:
            self._drop(digest)
            self._known[digest] = known
            self._num_tokens += _size(known)
            if parent is not None and parent in self._known:
                self._known.move_to_end(parent, last=False)
            while self._num_tokens > self._max_tokens:
                self._drop(next(iter(self._known)))

    def get(self, digest: bytes) -> Known | None:
        """What is known; it is used by that."""
        with self._lock:
            if digest in self._known:
                self._known.move_to_end(digest)
            return self._known.get(digest)

    def peek(self, digest: bytes) -> Known | None:
        """The same without a use."""
        with self._lock:
            return self._known.get(digest)

    def clear(self) -> int:
        """Forget all; returns how many answers were known."""
        with self._lock:
            count = len(self._known)
            self._known.clear()
            self._num_tokens = 0
        return count

    def __len__(self) -> int:
        """Answers known."""
        return len(self._known)

    def _drop(self, digest: bytes) -> None:
        known = self._known.pop(digest, None)
        if known is not None:
            self._num_tokens -= _size(known)


def chat_digests(seed: bytes | None, messages: Sequence[Message]) -> list[bytes]:
    """A digest after each message, of all messages so far under the tenant's and salt's seed."""
    digest = hashlib.sha256(b"kvloop-history-1" + (seed or b"")).digest()
    digests = []
    for message in messages:
        digest = next_digest(digest, message)
        digests.append(digest)
    return digests


def next_digest(digest: bytes, message: Message) -> bytes:
    """The digest after one more message. Blanks around an answer do not count: clients strip them,
    and ids are compared with the text before they are used."""
    step = hashlib.sha256(digest)
    for field in _FIELDS:
        value = str(message.get(field, ""))
        if field == "content" and message["role"] == "assistant":
            value = value.strip()
        data = value.encode()
        step.update(len(data).to_bytes(8, "little") + data)
    return step.digest()


def text_digest(text: str) -> bytes:
    """Of a rendered chat or its beginning."""
    return hashlib.sha256(text.encode()).digest()


def _size(known: Known) -> int:
    return len(known.ids) + _ENTRY_TOKENS

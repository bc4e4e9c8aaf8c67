"""What the router remembers of chats, in its own memory and in the shared cache, as chats ask."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from kvloop.router.history import History, Known, chat_digests, next_digest
from kvloop.router.history_record import DamagedRecord, Record, Segment, pack
from kvloop.router.history_replay import Trail
from kvloop.router.history_store import Fetch, NoAnswer, SharedRecords
from kvloop.router.metrics import RouterMetrics
from kvloop.router.nodes import NodeRegistry
from kvloop.router.prompts import ChatPrompt, chat_prompt
from kvloop.router.tokenizer import ChatTokenizer, Message, TokenizerThreads

Lookup = Literal["memory", "shared", "miss", "fault"]
_MAX_TRIES = 4
"""Answers that are asked for in vain before the chat counts as unknown."""
_MAX_RECORDS = 64
"""Of one chat that are read at once."""
_FOLLOW_S = 0.5
STRANGE_S = 20.0
_MAX_STRANGERS = 4096
log = logging.getLogger(__name__)


class Opening(NamedTuple):
    """A chat's prompt, and under what its answer is remembered."""

    prompt: ChatPrompt
    digests: list[bytes]
    """One after each message."""
    is_shared: bool
    """Whether the answer may go to the shared cache."""


class Strangers:
    """Answers of which no router had a record lately, such as the examples that an application
    puts before every question: not looked for again at once. Bounded; for one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, digest: bytes) -> None:
        """It was not found now."""
        self._until[digest] = self._clock() + STRANGE_S
        self._until.move_to_end(digest)
        if len(self._until) > _MAX_STRANGERS:
            self._until.popitem(last=False)

    def has(self, digest: bytes) -> bool:
        """Whether it was not found lately."""
        return self._until.get(digest, 0.0) > self._clock()


class ChatMemory:
    """For the event loop; what takes long happens on threads."""

    def __init__(
        self,
        history: History,
        records: SharedRecords | None,
        threads: TokenizerThreads,
        metrics: RouterMetrics,
    ) -> None:
        self.history = history
        self._records = records
        self._threads = threads
        self._metrics = metrics
        self._strangers = Strangers()
        self._namespaces: list[str] = []

    async def open(
        self,
        tokenizer: ChatTokenizer,
        seed: bytes | None,
        messages: Sequence[Message],
        variables: Mapping[str, Any],
        *,
        use_history: bool,
        use_storage: bool,
    ) -> Opening:
        """The prompt of a chat. Without `use_history` earlier answers are tokenized anew, and
        without `use_storage` the shared cache is neither read nor written. Raises BadRequest."""
        is_shared = use_history and use_storage and self._records is not None
        digests = await self._threads.call(chat_digests, seed, messages)
        trail = await self._trail(messages, digests, is_shared)
        prompt = await self._threads.call(
            lambda: chat_prompt(tokenizer, messages, variables, trail, use_history=use_history)
        )
        if prompt.drift != "none":
            self._metrics.drift.labels("true" if prompt.drift == "repaired" else "false").inc()
        if trail.segments and prompt.found is not None:
            self._learn(digests, prompt.found)
        return Opening(prompt, digests, is_shared)

    def remember(self, opening: Opening, text: str, answer: Sequence[int]) -> None:
        """Keep the ids of an answer that has ended; its stop token is not among them."""
        digests, prompt = opening.digests, opening.prompt
        said: Message = {"role": "assistant", "content": text}
        digest = next_digest(digests[-1], said)
        known = prompt.answered(answer, len(digests) + 1)
        parent = digests[known.parent - 1] if known.parent else None
        self.history.put(digest, known, parent)
        if self._records is not None and opening.is_shared:
            self._records.put(digest, lambda: pack(known, self._parents(digests)))

    def use(self, records: SharedRecords | None) -> None:
        """Read and write these from now on; the ones before are the caller's to close."""
        before, self._records = self._records, records
        if records is not None:
            kept = [before.namespace] if before is not None and before.namespace else []
            records.follow(kept or self._namespaces)
        self._strangers = Strangers()

    async def follow(self, registry: NodeRegistry) -> None:
        """Keep to the namespace of the nodes that serve, for ever."""
        while True:
            nodes = [*registry.ready("decode"), *registry.ready("prefill")]
            self._namespaces = [node.namespace for node in nodes]
            if self._records is not None:
                self._records.follow(self._namespaces)
            await asyncio.sleep(_FOLLOW_S)

    def status(self) -> dict[str, Any]:
        """For people."""
        records = self._records
        shared = records.status() if records is not None else None
        return {"answers": len(self.history), "shared": shared}

    async def close(self) -> None:
        """Write what waits; takes some seconds at most."""
        if self._records is not None:
            await asyncio.to_thread(self._records.close)

    def _learn(self, digests: Sequence[bytes], known: Known) -> None:
        parent = digests[known.parent - 1] if known.parent else None
        self.history.put(digests[known.num_messages - 1], known, parent)

    def _parents(self, digests: Sequence[bytes]) -> Callable[[Known], Known | None]:
        return lambda known: self.history.peek(digests[known.parent - 1])

    async def _trail(
        self, messages: Sequence[Message], digests: Sequence[bytes], is_shared: bool
    ) -> Trail:
        answers = [n for n, message in enumerate(messages, 1) if message["role"] == "assistant"]
        if not answers:
            return Trail()
        own = next((n for n in reversed(answers) if self._knows(digests, n)), 0)
        mine = Trail(self.history.get(digests[own - 1]) if own else None)
        lookup: Lookup = "memory" if own == answers[-1] else "miss"
        last = digests[answers[-1] - 1]
        if lookup == "miss" and is_shared and not self._strangers.has(last):
            newer = [n for n in reversed(answers) if n > own][:_MAX_TRIES]
            lookup, mine = await self._shared_trail(digests, newer, mine)
            if lookup == "miss":
                self._strangers.add(last)
        self._metrics.history_lookups.labels(lookup).inc()
        return mine

    async def _shared_trail(
        self, digests: Sequence[bytes], newer: Sequence[int], mine: Trail
    ) -> tuple[Lookup, Trail]:
        if self._records is None:  # detached meanwhile
            return "miss", mine
        try:
            found = await self._records.ask(
                lambda fetch: find_trail(fetch, digests, newer, self.history.peek)
            )
        except (NoAnswer, DamagedRecord) as error:
            log.debug("an answer's record could not be read: %s", error)
            return "fault", mine
        return ("shared", found) if found is not None else ("miss", mine)

    def _knows(self, digests: Sequence[bytes], number: int) -> bool:
        return self.history.peek(digests[number - 1]) is not None


def find_trail(
    fetch: Fetch,
    digests: Sequence[bytes],
    newer: Sequence[int],
    known: Callable[[bytes], Known | None],
) -> Trail | None:
    """The trail to the newest answer that has a record; `newer` are numbers of messages that end in
    an answer which is not known yet, the newest first."""
    for number in newer:
        trail = _trail_to(fetch, digests, number, known)
        if trail is not None:
            return trail
    return None


def _trail_to(
    fetch: Fetch,
    digests: Sequence[bytes],
    number: int,
    known: Callable[[bytes], Known | None],
) -> Trail | None:
    """None where a record is missing on the way back to what is known, or to the chat's start."""
    segments: list[Segment] = []
    for _ in range(_MAX_RECORDS):
        record: Record | None = fetch(digests[number - 1], number)
        if record is None:
            return None
        for segment in reversed(record.segments):
            base = known(digests[segment.num_messages - 1])
            if base is not None:
                return Trail(base, tuple(reversed(segments)))
            segments.append(segment)
        number = record.follows
        if not number:
            return Trail(None, tuple(reversed(segments)))
        base = known(digests[number - 1])
        if base is not None:
            return Trail(base, tuple(reversed(segments)))
    return None

"""A canary's pages as this node's L3 has them: looked for, read and checked, or removed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from kvloop.engine.messages import CheckPages, Reply, ToEngine
from kvloop.engine.parts import NodeParts
from kvloop.shared_cache.canary import (
    DevicePage,
    PageQuestion,
    PageReply,
    PageResult,
    StoredPage,
    canary_seed,
)
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.tail import tail_key

log = logging.getLogger("kvloop.engine")
_MAX_WAITING = 16
_SLOT_WAIT_S = 1.0
_SLOTS_AT_ONCE = 8

Send = Callable[[Reply], None]


class PageChecks:
    """Answers on a thread of its own, one question after the other: L3 may take its time."""

    def __init__(self, parts: NodeParts, send: Send) -> None:
        self._parts, self._send = parts, send
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="page-check")
        self._lock = threading.Lock()
        self._num_waiting = 0

    def takes(self, message: ToEngine) -> bool:
        """Begin to look, where that is what the message asks for and L3 is to be looked into."""
        if not isinstance(message, CheckPages) or message.question.look == "device":
            return False
        self._start(message)
        return True

    def _start(self, message: CheckPages) -> None:
        """The reply comes when it is done; 429 at once where too many wait."""
        with self._lock:
            is_full = self._num_waiting >= _MAX_WAITING
            self._num_waiting += not is_full
        if is_full:
            self._send(Reply(message.call, b'{"error": {"message": "too many questions"}}', 429))
        else:
            self._thread.submit(self._run, message)

    def _run(self, message: CheckPages) -> None:
        try:
            reply = answer(self._parts, message, look_into_storage(self._parts, message.question))
        except Exception as error:  # the node serves on, whatever a look has met
            log.exception("a look at a canary's pages failed")
            reply = answer(self._parts, message, problem=f"{type(error).__name__} while looking")
        finally:
            with self._lock:
                self._num_waiting -= 1
        self._send(reply)


def answer(
    parts: NodeParts,
    message: CheckPages,
    stored: Sequence[StoredPage] = (),
    device: Sequence[DevicePage] = (),
    problem: str | None = None,
) -> Reply:
    """What was found, beside how the node's L3 stands."""
    status = parts.store.status()
    reply = PageReply(
        page_size=parts.config.page_size,
        launched_with=parts.config.hicache_storage_backend,
        backend=status["backend"],
        state=status["state"],
        last_error=status["last_error"],
        stored=tuple(stored),
        device=tuple(device),
        problem=problem,
    )
    return Reply(message.call, msgspec.json.encode(reply))


def question_keys(parts: NodeParts, question: PageQuestion) -> list[bytes]:
    """Of the full pages asked about, by this node's page size."""
    return page_keys(question.tokens, parts.config.page_size, canary_seed(question.nonce))


def look_into_storage(parts: NodeParts, question: PageQuestion) -> list[StoredPage]:
    """One entry a page; blocks for the guard's deadlines."""
    keys = question_keys(parts, question)
    if question.look == "remove":
        keys += _tail_key(parts, question, keys)
        return _named(parts.store.guard.delete(keys) or [False] * len(keys), "removed")
    there = parts.store.exists(keys)
    if question.look == "exists":
        return _named(there, "there")
    found = [key for key, is_there in zip(keys, there, strict=True) if is_there]
    read = dict(zip(found, _read(parts, found), strict=True))
    return [read.get(key, StoredPage(result="missing")) for key in keys]


def _tail_key(parts: NodeParts, question: PageQuestion, keys: Sequence[bytes]) -> list[bytes]:
    """Of the tail that decode stores behind the pages, if any; the last token has no KV."""
    end = len(question.tokens) - 1
    index, num_tokens = divmod(end, parts.config.page_size)
    if not parts.config.tail_objects or not num_tokens:
        return []
    parent = keys[index - 1] if index else canary_seed(question.nonce)
    return [tail_key(parent, question.tokens[end - num_tokens : end])]


def _named(outcomes: Sequence[bool], yes: PageResult) -> list[StoredPage]:
    return [StoredPage(result=yes if outcome else "missing") for outcome in outcomes]


def _read(parts: NodeParts, keys: Sequence[bytes]) -> list[StoredPage]:
    """Of pages that L3 holds; through a few host pages, given back at once."""
    pages: list[StoredPage] = []
    while len(pages) < len(keys):
        rest = keys[len(pages) :][:_SLOTS_AT_ONCE]
        slots = parts.pool.alloc_up_to(len(rest), _SLOT_WAIT_S)
        if not slots:
            return pages + [StoredPage(result="unread")] * (len(keys) - len(pages))
        try:
            writers = parts.store.load(rest[: len(slots)], slots)
            pages += [
                StoredPage(result="good", writer=writer, is_zero=_is_zero(parts, slot))
                if writer is not None
                else StoredPage(result="damaged")
                for writer, slot in zip(writers, slots, strict=True)
            ]
        finally:
            parts.pool.free(slots)
    return pages


def _is_zero(parts: NodeParts, slot: int) -> bool:
    groups = range(parts.shape.head_groups)
    return not any(parts.pool.payload(group)[slot].any() for group in groups)

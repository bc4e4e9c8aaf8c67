"""Requests of a trace: which pages a prompt has, and how many tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from kvloop.shared_cache.errors import ConfigError

PAGE_TOKENS = 512
"""Tokens that one id of the trace stands for; a prompt's last page may have fewer."""


class _Line(msgspec.Struct):
    input_length: int
    hash_ids: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt; equal ids are equal pages with equal pages before them."""

    pages: tuple[int, ...]
    num_tokens: int
    priority: int = 0

    def tokens(self, first: int, last: int) -> int:
        """Tokens of the pages from `first` up to, not including, `last`."""
        return min(last * PAGE_TOKENS, self.num_tokens) - min(first * PAGE_TOKENS, self.num_tokens)


def read_trace(
    path: Path,
    *,
    skip: int = 0,
    limit: int | None = None,
    priority: Callable[[int], int] = lambda number: 0,
) -> list[Request]:
    """The requests in order, `priority` from each one's number; raises ConfigError by line."""
    try:
        with path.open("rb") as lines:
            end = None if limit is None else skip + limit
            chosen = islice(enumerate(lines), skip, end)
            requests = [_request(path, number, line, priority) for number, line in chosen]
    except OSError as error:
        raise ConfigError(f"--trace {path}: {error.strerror}") from error
    if not requests:
        raise ConfigError(f"--trace {path} has no requests from line {skip + 1} on")
    _check_prefixes(path, requests)
    return requests


def working_set(requests: Iterable[Request]) -> int:
    """Different pages."""
    return len({page for request in requests for page in request.pages})


def page_key(page: int, parent: bytes) -> bytes:
    """The 32-byte key of a page, chained as real keys are."""
    return hashlib.sha256(parent + page.to_bytes(8, "little")).digest()


class Keys:
    """Keys of paths; each page's is computed once."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}
        self.page_of: dict[bytes, int] = {}

    def of(self, pages: Sequence[int]) -> list[bytes]:
        """The keys of a path from the first page on."""
        return list(self._of(pages))

    def _of(self, pages: Sequence[int]) -> Iterator[bytes]:
        key = b""
        for page in pages:
            known = self._known.get(page)
            if known is None:
                known = self._known[page] = page_key(page, key)
                self.page_of[known] = page
            key = known
            yield key


def _request(path: Path, number: int, line: bytes, priority: Callable[[int], int]) -> Request:
    try:
        read = msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError as error:
        raise ConfigError(f"--trace {path} line {number + 1}: {error}") from None
    wanted = -(-read.input_length // PAGE_TOKENS)
    if not read.hash_ids or len(read.hash_ids) != wanted:
        raise ConfigError(
            f"--trace {path} line {number + 1}: 'hash_ids' has {len(read.hash_ids)} ids, and "
            f"{read.input_length} tokens are {wanted} pages of {PAGE_TOKENS}"
        )
    return Request(
        pages=tuple(read.hash_ids), num_tokens=read.input_length, priority=priority(number)
    )


def _check_prefixes(path: Path, requests: Iterable[Request]) -> None:
    """An id names all before it, as a page's key does."""
    before: dict[int, int | None] = {}
    for request in requests:
        previous: int | None = None
        for page in request.pages:
            if before.setdefault(page, previous) != previous:
                raise ConfigError(
                    f"--trace {path}: id {page} follows {before[page]} and also {previous}; "
                    "an id must stand for a page with all pages before it"
                )
            previous = page

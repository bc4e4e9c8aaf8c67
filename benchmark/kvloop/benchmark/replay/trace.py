"""Requests of a trace: which pages a prompt has, and how many tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec

from kvloop.shared_cache.errors import ConfigError

PAGE_TOKENS = 512
"""Tokens that one id of the trace stands for; a prompt's last page may have fewer."""

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
"""What every JSON reader takes for the same number; 8 bytes of a page's key have room for it."""


class BadLine(ValueError):
    """A line of a trace is no request; the message says why."""


class Line(msgspec.Struct, kw_only=True):
    """What a line must have to be replayed without its times."""

    input_length: Count
    hash_ids: list[Count]
    timestamp: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    output_length: Count = 1


class TimedLine(Line, kw_only=True):
    """What a line must have to be replayed in time."""

    timestamp: Annotated[float, msgspec.Meta(ge=0)]
    output_length: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt; equal ids are equal pages with equal pages before them."""

    pages: tuple[int, ...]
    num_tokens: int
    priority: int = 0
    at_ms: float = 0.0
    """Its arrival, by the trace's clock."""
    output_length: int = 1
    """Tokens of the answer."""

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
    prefixes = Prefixes()

    def read(number: int, line: bytes) -> Request:
        try:
            request = parse_request(line)
            prefixes.admit(request.pages)
        except BadLine as error:
            raise ConfigError(f"--trace {path} line {number + 1}: {error}") from None
        return replace(request, priority=priority(number))

    try:
        with path.open("rb") as lines:
            end = None if limit is None else skip + limit
            chosen = islice(enumerate(lines), skip, end)
            requests = [read(number, line) for number, line in chosen]
    except OSError as error:
        raise ConfigError(f"--trace {path}: {error.strerror}") from error
    if not requests:
        raise ConfigError(f"--trace {path} has no requests from line {skip + 1} on")
    return requests


def parse_request(line: bytes, shape: type[Line] = Line) -> Request:
    """The request of a line that has all that `shape` wants; raises BadLine."""
    try:
        read = msgspec.json.decode(line, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadLine(str(error)) from None
    wanted = -(-read.input_length // PAGE_TOKENS)
    if not read.hash_ids or len(read.hash_ids) != wanted:
        raise BadLine(
            f"'hash_ids' has {len(read.hash_ids)} ids, and "
            f"{read.input_length} tokens are {wanted} pages of {PAGE_TOKENS}"
        )
    return Request(
        pages=tuple(read.hash_ids),
        num_tokens=read.input_length,
        at_ms=read.timestamp,
        output_length=read.output_length,
    )


class Prefixes:
    """Which id each id follows: an id names all before it, as a page's key does."""

    def __init__(self) -> None:
        self.parent: dict[int, int | None] = {}

    def admit(self, pages: Sequence[int]) -> None:
        """Remember a prompt's ids; raises BadLine, and remembers none, where one contradicts."""
        new: dict[int, int | None] = {}
        previous: int | None = None
        for page in pages:
            before = new.get(page, self.parent.get(page, previous))
            if before != previous:
                raise BadLine(
                    f"id {page} follows {before} and also {previous}; "
                    "an id must stand for a page with all pages before it"
                )
            if page not in self.parent:
                new[page] = previous
            previous = page
        self.parent |= new


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

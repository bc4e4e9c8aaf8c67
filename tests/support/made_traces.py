"""Traces made up for tests: requests whose ids form trees, as a real trace's do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from hypothesis import strategies as st

from kvloop.benchmark.replay.trace import PAGE_TOKENS, Request


@st.composite
def made_requests(draw: st.DrawFn, max_size: int = 12) -> list[Request]:
    """In time order; each begins as an earlier one does, or anew, and goes on with ids of its own.

    An id that ends one prompt, perhaps with fewer tokens, can stand whole in another.
    """
    requests: list[Request] = []
    next_id = 0
    for _ in range(draw(st.integers(1, max_size))):
        base: tuple[int, ...] = ()
        if requests:
            base = draw(st.sampled_from(requests)).pages
        kept = base[: draw(st.integers(0, len(base)))]
        num_new = draw(st.integers(0 if kept else 1, 4))
        pages = kept + tuple(range(next_id, next_id + num_new))
        next_id += num_new
        last = draw(st.integers(1, PAGE_TOKENS))
        requests.append(
            Request(
                pages=pages,
                num_tokens=(len(pages) - 1) * PAGE_TOKENS + last,
                at_ms=float(100 * len(requests)),
                output_length=draw(st.integers(0, 900)),
            )
        )
    return requests


def line_of(request: Request) -> str:
    """As it stands in a trace."""
    return json.dumps(
        {
            "timestamp": request.at_ms,
            "input_length": request.num_tokens,
            "output_length": request.output_length,
            "hash_ids": request.pages,
        }
    )


def write_trace(path: Path, requests: Iterable[Request]) -> Path:
    """A file of them; returns its path."""
    return write_lines(path, map(line_of, requests))


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    """A file of lines; returns its path."""
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def request(at_ms: float, *pages: int, last: int = PAGE_TOKENS, output: int = 100) -> Request:
    """One with a last page of `last` tokens."""
    return Request(
        pages=pages,
        num_tokens=(len(pages) - 1) * PAGE_TOKENS + last,
        at_ms=at_ms,
        output_length=output,
    )

"""A trace as a load: an open loop, at the trace's times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kvloop.benchmark.replay.trace import PAGE_TOKENS, Request
from kvloop.benchmark.simulate.prompt import Load, Prompt, Sharing
from kvloop.shared_cache.errors import ConfigError


def trace_load(
    requests: Sequence[Request],
    *,
    page_size: int = PAGE_TOKENS,
    time_scale: float = 1.0,
    sharing: Sharing = "as_traced",
    has_answers: bool = False,
) -> Load:
    """Each id becomes `512 / page_size` pages; `time_scale` 2 is twice as fast.

    As traced, a prompt's last page counts though it is not full, and all of a prompt may be found:
    what is counted are the trace's own ids. As timed, the engine's rules hold: full pages, and the
    last token is computed. `has_answers`: pages that a later prompt shows to be a prompt's answer
    are known as its own. Raises ConfigError.
    """
    if PAGE_TOKENS % page_size:
        raise ConfigError(f"--page-size {page_size}: an id stands for 512 tokens; give a divisor")
    begin_ms = min(request.at_ms for request in requests)
    ordered = sorted(requests, key=lambda request: request.at_ms)
    prompts = [
        _prompt(number, request, page_size, sharing, (request.at_ms - begin_ms) / 1000 / time_scale)
        for number, request in enumerate(ordered)
    ]
    if has_answers:
        prompts = list(_with_answers(prompts, page_size))
    return Load(prompts=tuple(prompts), page_size=page_size, sharing=sharing)


def _prompt(number: int, request: Request, page_size: int, sharing: Sharing, at_s: float) -> Prompt:
    split = PAGE_TOKENS // page_size
    pages = [page * split + part for page in request.pages for part in range(split)]
    num_tokens = request.num_tokens
    full = num_tokens // page_size
    num_pages = -(-num_tokens // page_size) if sharing == "as_traced" else full
    readable = num_pages if sharing == "as_traced" else (num_tokens - 1) // page_size
    return Prompt(
        number=number,
        conversation=number,
        turn=1,
        pages=tuple(pages[:num_pages]),
        num_readable=readable,
        num_tokens=num_tokens,
        output_length=max(request.output_length, 1),
        at_s=at_s,
    )


def _with_answers(prompts: Sequence[Prompt], page_size: int) -> Iterator[Prompt]:
    """A prompt that goes on behind another's full pages, and is long enough to hold its answer."""
    last: dict[int, int] = {}
    after: dict[int, tuple[int, ...]] = {}
    for prompt in prompts:
        before = _continued(prompt, prompts, last, page_size)
        if before is not None and before.number not in after:
            num_kv = before.num_tokens + before.output_length - 1
            after[before.number] = prompt.pages[: num_kv // page_size]
        full = prompt.num_tokens // page_size
        if full:
            last[prompt.pages[full - 1]] = prompt.number
    for prompt in prompts:
        yield replace(prompt, after=after.get(prompt.number, ()))


def _continued(
    prompt: Prompt, prompts: Sequence[Prompt], last: dict[int, int], page_size: int
) -> Prompt | None:
    full = prompt.num_tokens // page_size
    for page in reversed(prompt.pages[:full]):
        number = last.get(page)
        if number is not None:
            before = prompts[number]
            is_whole = before.num_tokens + before.output_length <= prompt.num_tokens
            return before if is_whole else None
    return None

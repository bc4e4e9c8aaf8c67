"""A measured run's own requests as a load: each conversation waits for its answers, as it did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import count, islice

from kvloop.benchmark.results.document import Report
from kvloop.benchmark.sample import Sample
from kvloop.benchmark.simulate.prompt import Load, Prompt
from kvloop.shared_cache.errors import ConfigError

_Chat = list[Sample]
_SHARED = 0.1
"""Of the first turns' tokens found in the cache: more is no accident."""


def samples_of(report: Report) -> list[Sample]:
    """What the arm `on` was answered, in the order of sending; raises ConfigError if nothing."""
    samples = sorted((s for s in report.samples if s.arm == "on"), key=lambda s: s.sent_at)
    if not samples:
        raise ConfigError(
            f"report {report.title!r} has no samples of the arm 'on': a run is simulated from "
            "its samples"
        )
    return samples


def report_load(report: Report, page_size: int) -> Load:
    """Answers and thinking come as they came; who began when another had ended does so again.

    Conversations that began at a time of their own (a rate, a trace) begin at that time.
    """
    chats = _chats(samples_of(report))
    _check_beginnings(chats)
    numbers: dict[tuple[int, int], int] = {}
    pages = _Pages(page_size)
    prompts: list[Prompt] = []
    begun_at = min(chat[0].sent_at for chat in chats)
    is_trace = report.workload.get("kind") == "trace"
    is_open = is_trace or any(segment.rate is not None for segment in report.segments)
    befores = [None] * len(chats) if is_open else _predecessors(chats)
    for index, (chat, before) in enumerate(zip(chats, befores, strict=True)):
        for place, sample in enumerate(chat):
            follows, delay_s, at_s = None, 0.0, 0.0
            if place:
                follows = numbers[index, place - 1]
                if is_trace:  # due at a time of its own too, but not before its answer
                    at_s = max(sample.sent_at - sample.late_s - begun_at, 0.0)
                else:
                    delay_s = max(sample.sent_at - chat[place - 1].ended_at, 0.0)
            elif before is not None:
                follows = numbers[before, len(chats[before]) - 1]
                delay_s = sample.sent_at - chats[before][-1].ended_at
            else:
                at_s = sample.sent_at - begun_at
            numbers[index, place] = len(prompts)
            prompts.append(pages.prompt(sample, len(prompts), at_s, follows, delay_s))
    return Load(prompts=tuple(prompts), page_size=page_size, sharing="as_timed")


def _chats(samples: Sequence[Sample]) -> list[_Chat]:
    """Conversations of each round, by their beginnings."""
    chats: dict[tuple[int, int, int], _Chat] = defaultdict(list)
    for sample in samples:
        chats[sample.step, sample.round, sample.conversation].append(sample)
    return sorted(chats.values(), key=lambda chat: chat[0].sent_at)


def _check_beginnings(chats: Sequence[_Chat]) -> None:
    """What conversations share is not in a report: it would be simulated as computed."""
    first = [chat[0] for chat in chats]
    cached = sum(sample.cached_tokens or 0 for sample in first)
    prompts = sum(sample.prompt_tokens for sample in first)
    if cached > _SHARED * prompts:
        raise ConfigError(
            f"the run's first turns found {cached / prompts:.0%} of their tokens: its "
            "conversations share beginnings, or the server knew them, and a report does not say "
            "which; give a run without --system-prompts, --branches and used seeds"
        )


def _predecessors(chats: Sequence[_Chat]) -> list[int | None]:
    """Whose end let each begin: the last that had ended by then, each used once."""
    free: list[tuple[float, int]] = []
    running: list[tuple[float, int]] = []
    found: list[int | None] = []
    for number, chat in enumerate(chats):
        began_at = chat[0].sent_at
        free += [end for end in running if end[0] <= began_at]
        running = [end for end in running if end[0] > began_at]
        before = max(free, default=None)
        if before is not None:
            free.remove(before)
        found.append(before[1] if before is not None else None)
        running.append((chat[-1].ended_at, number))
    return found


class _Pages:
    """Page numbers of conversations: a prompt begins with what can be reused of the turn before."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._left: dict[int, tuple[int, ...]] = {}
        """Pages that each conversation's last turn left, its answer's too."""
        self._numbers = count()

    def prompt(
        self, sample: Sample, number: int, at_s: float, follows: int | None, delay_s: float
    ) -> Prompt:
        num, page_size = sample.prompt_tokens, self._page_size
        answered = num + max(sample.completion_tokens, 1) - 1
        reused = self._left.get(sample.conversation, ())[: sample.reusable_tokens // page_size]
        after = self._go_on(reused, answered // page_size)
        self._left[sample.conversation] = after
        return Prompt(
            number=number,
            conversation=sample.conversation,
            turn=sample.turn,
            pages=after[: num // page_size],
            num_readable=(num - 1) // page_size,
            num_tokens=num,
            output_length=max(sample.completion_tokens, 1),
            after=after,
            at_s=at_s,
            follows=follows,
            delay_s=delay_s,
        )

    def _go_on(self, pages: tuple[int, ...], num: int) -> tuple[int, ...]:
        return (*pages[:num], *islice(self._numbers, max(num - len(pages), 0)))

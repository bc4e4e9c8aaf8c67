"""A loop of several nodes whose pools are far too small for all chats, and the chats through it."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faults import known_nodes
from hicache_loop import use_stalling
from reference import smollm2_gguf
from running import Cluster, Running, drained, wait_for
from served_models import save_served

from kvloop.benchmark.driver.api import open_session
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.reuse.account import Account
from kvloop.benchmark.reuse.hold import Chats, OnOutcome
from kvloop.benchmark.reuse.load import ChatLoad

_TURN_TOKENS = 90
"""What a message and the template's words around it come to, at most."""
_QUIET_S = 0.3
"""Longer than a node's load report is old."""
NODE_FLAGS = ("--hicache-storage-prefetch-policy", "wait_complete", "--max-running-requests", "32")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How a loop is started; pools are sized for the chats that are under way, not for all."""

    prefills: int = 2
    decodes: int = 2
    page_size: int = 16
    store: str = "file"
    """`file`, `mooncake`, or `slow`: files, with a pause before each page becomes visible."""
    write_pause_s: float = 0.05
    write_policy: str = "write_through"
    dtype: str = "auto"
    prefill_flags: tuple[str, ...] = ()
    decode_flags: tuple[str, ...] = ()
    router_flags: tuple[str, ...] = ()

    def pool_tokens(self, load: ChatLoad) -> int:
        """L1 of each prefill node, half of a decode node's: all requests in flight fit."""
        longest = load.turns * (_TURN_TOKENS + load.answer_tokens[1])
        return max(load.at_once, 2) * (longest // self.page_size + 2) * self.page_size


@dataclass
class ManyNodes:
    """A running loop."""

    cluster: Cluster
    shape: Shape
    prefills: list[Running]
    decodes: list[Running]

    @property
    def nodes(self) -> list[Running]:
        return [*self.prefills, *self.decodes]

    async def settle(self) -> None:
        """Wait until every page that is full has been stored or given up."""
        await asyncio.sleep(_QUIET_S)
        await asyncio.to_thread(wait_for, "the drain", lambda: drained(*self.nodes), 60)

    def hold(self, name: str, load: ChatLoad, on_outcome: OnOutcome = lambda _: None) -> Account:
        """Hold all chats of a load under a salt of their own."""
        return asyncio.run(self._hold(name, load, on_outcome))

    async def _hold(self, name: str, load: ChatLoad, on_outcome: OnOutcome) -> Account:
        target = Target(url=self.cluster.url, model="m", content="text")
        async with open_session() as http:
            chats = Chats(
                http=http,
                target=target,
                load=load,
                settle=self.settle,
                salt=secrets.token_hex(8),
                on_outcome=on_outcome,
            )
            await chats.hold()
        return self.account(name, load, chats)

    def account(self, name: str, load: ChatLoad, chats: Chats) -> Account:
        """Of chats that were held."""
        return Account(
            name=name,
            load=load,
            page_size=self.shape.page_size,
            turns=chats.turns,
            failures=chats.failures,
            duration_s=chats.duration_s,
        )


@contextmanager
def many_nodes(directory: Path, model: str, shape: Shape, load: ChatLoad) -> Iterator[ManyNodes]:
    """Start the loop that this load goes through; all is stopped at the end."""
    common = ("--dtype", shape.dtype, "--page-size", str(shape.page_size), *NODE_FLAGS)
    tokens = shape.pool_tokens(load)
    with Cluster(directory, model, *common) as cluster:
        if shape.store == "mooncake":
            store = cluster.mooncake(segment_gib="2")
            wait_for("the store", lambda: "store ready" in store.log.read_text())
        elif shape.store == "slow":
            use_stalling(cluster, {"write_pause_s": shape.write_pause_s})
        else:
            cluster.file_cache()
        router = cluster.router(*shape.router_flags)
        prefill = (
            *("--max-total-tokens", str(tokens), "--hicache-ratio", "1.5"),
            *("--hicache-write-policy", shape.write_policy),
            *shape.prefill_flags,
        )
        decode = ("--max-total-tokens", str(2 * tokens), *shape.decode_flags)
        loop = ManyNodes(
            cluster,
            shape,
            [cluster.node("prefill", *prefill) for _ in range(shape.prefills)],
            [cluster.node("decode", *decode) for _ in range(shape.decodes)],
        )
        for running in (*loop.nodes, router):
            running.wait_ready()
        for node in loop.nodes:
            wait_for("L3", lambda node=node: is_attached(node))
        wait_for("the router's notice", lambda: known_nodes(cluster.url) >= len(loop.nodes))
        yield loop


def is_attached(node: Running) -> bool:
    return node.metric("kvloop_storage_state", state="attached") == 1


def variants(load: ChatLoad) -> dict[str, ChatLoad]:
    """The ways in which the same chats are held."""
    return {
        "at once": load,
        "rounds": replace(load, pace="rounds"),
        "l3_only": replace(load, pace="rounds", cache="l3_only"),
    }


def save_tiny_chat_model(directory: Path) -> str:
    """A small random model with the demo model's tokenizer: its answers hardly ever re-tokenize
    to the ids that were generated."""
    from transformers import AutoTokenizer

    path = smollm2_gguf()
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return save_served("llama", directory, len(tokenizer), tokenizer)


def hardware() -> str:
    """For a report: cores, processor, load."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown processor",
    )
    day = time.strftime("%Y-%m-%d")
    return f"{os.cpu_count()} cores, {model}, load average {os.getloadavg()[0]:.1f}, {day}"

"""Two decode nodes behind one prefill node, with and without a shared cache: what a token costs."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import secrets
import statistics
import time
from dataclasses import dataclass

from admin import ask as ask_admin
from engine_cpu import engine_cpu
from faults import engine_of, known_nodes
from loop import flush
from many_chats import is_attached
from running import Cluster, Running, drained, wait_for

from kvloop.benchmark.driver.api import Exchange, ask, open_session
from kvloop.benchmark.driver.body import build_body
from kvloop.benchmark.driver.target import Target

_CLEAR = "/hicache/storage-backend/clear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One arm of a pair."""

    cpu_us: float
    """For each generated token: the whole engine."""
    loop_us: float
    itl_ms: float
    token_ms: float
    """The output rate as a cost."""
    stored_pages: float

    @property
    def tokens_per_s(self) -> float:
        return 1000 / self.token_ms


class OffloadBench:
    """Running nodes; the decode nodes are measured."""

    def __init__(self, on: Cluster, off: Cluster, args: argparse.Namespace) -> None:
        self._args = args
        self._clusters = {"on": on, "off": on if args.control == "cache_off" else off}
        self._flags = (
            *("--max-total-tokens", str(args.pool_tokens), "--page-size", str(args.page_size)),
            *("--max-running-requests", str(max(args.concurrency)), *args.node_flag),
        )
        self._prefill = on.node("prefill", *self._flags)
        routers = [on.router()]
        if args.control != "cache_off":
            routers.append(off.router("--prefill", self._prefill.url))
        self._decodes: dict[str, Running] = {}
        self._engines: dict[str, int] = {}
        self._prefill.wait_ready()
        wait_for("L3", lambda: is_attached(self._prefill))
        self.restart()
        for router in routers:
            router.wait_ready()

    def restart(self) -> None:
        """Fresh decode nodes, warmed up."""
        for node in set(self._decodes.values()):
            node.stop()
        for arm, cluster in self._clusters.items():
            is_shared = arm == "off" and self._args.control == "cache_off"
            port = self._decodes[arm].port if arm in self._decodes else None
            flags = (*self._flags, *self._args.decode_flag)
            node = self._decodes["on"] if is_shared else cluster.node("decode", *flags, port=port)
            self._decodes[arm] = node
        for arm, node in self._decodes.items():
            node.wait_ready()
            self._engines[arm] = engine_of(node)
            incarnation, url = node.info()["node"]["incarnation"], self._clusters[arm].url
            wait_for(
                "the router's notice",
                lambda url=url, name=incarnation: known_nodes(url, name) >= 2,
            )
        wait_for("L3", lambda: is_attached(self._decodes["on"]))
        for arm in self._clusters:
            asyncio.run(self._ask_all(arm, max(self._args.concurrency), 0, num_rounds=1))

    def block(self, arm: str, concurrency: int, seed: int) -> Block:
        """One arm's requests, and all that they leave behind stored."""
        node, engine = self._decodes[arm], self._engines[arm]
        self._empty()
        before, stored = engine_cpu(engine), stored_pages(node)
        exchanges = asyncio.run(self._ask_all(arm, concurrency, seed))
        ended_at = time.monotonic()
        wait_for("the drain", lambda: drained(node), 60)
        time.sleep(max(ended_at + self._args.quiet_s - time.monotonic(), 0))
        used = engine_cpu(engine) - before
        num_tokens = sum(len(one.answer.ids) for one in exchanges)
        began_at = min(one.sent_at for one in exchanges)
        gaps = [gap for one in exchanges for gap in one.answer.gaps()]
        return Block(
            cpu_us=used.process_s / num_tokens * 1e6,
            loop_us=used.loop_s / num_tokens * 1e6,
            itl_ms=statistics.mean(gaps) * 1000,
            token_ms=(max(one.ended_at for one in exchanges) - began_at) / num_tokens * 1000,
            stored_pages=stored_pages(node) - stored,
        )

    def _empty(self) -> None:
        """Nothing waits to be stored, and nothing is: the store never fills up."""
        nodes = (self._prefill, *self._decodes.values())
        wait_for("the drain", lambda: drained(*nodes), 60)
        flush(self._prefill)  # what L2 still has would be offered to the empty store
        status, answer = ask_admin(self._prefill, "POST", _CLEAR)
        assert status == 200, answer
        wait_for("L3", lambda: is_attached(self._prefill) and is_attached(self._decodes["on"]))

    async def _ask_all(
        self, arm: str, concurrency: int, seed: int, num_rounds: int | None = None
    ) -> list[Exchange]:
        args = self._args
        off = arm == "off" and args.control == "cache_off"
        target = Target(
            url=self._clusters[arm].url,
            model="m",
            extra_body={"kvloop": {"cache": "off"}} if off else {},
        )
        salt = secrets.token_hex(8)
        count = concurrency * (num_rounds or args.rounds[concurrency])
        draw = random.Random(f"{seed} {concurrency}")
        waiting = iter([draw.choices(range(100, 20_000), k=args.prompt) for _ in range(count)])
        async with open_session() as http:

            async def client() -> list[Exchange]:
                return [
                    await ask(
                        http,
                        target,
                        build_body(target, prompt, output_length=args.answer, salt=salt),
                        timeout_s=300,
                    )
                    for prompt in waiting
                ]

            done = await asyncio.gather(*(client() for _ in range(concurrency)))
        return list(itertools.chain.from_iterable(done))


def stored_pages(node: Running) -> float:
    return node.metric("kvloop_pages_total", path="offload", result="stored")

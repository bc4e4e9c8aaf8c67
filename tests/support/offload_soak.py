"""A steady load on a loop, and its decode nodes looked at each second."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import psutil
from faults import engine_of
from many_chats import ManyNodes
from running import Running, fetch

from kvloop.benchmark.driver.api import open_session
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.reuse.hold import Chats
from kvloop.benchmark.reuse.load import ChatLoad
from kvloop.benchmark.sample import Failure

GAUGES = {
    "backlog": "kvloop_offload_backlog_pages",
    "staging": "kvloop_offload_staging_pages",
    "free pages": "kvloop_device_free_pages",
    "quarantined": "kvloop_quarantined_pages",
}
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Look:
    """One decode node at one moment."""

    at_s: float
    """Since the soak began."""
    backlog: float
    staging: float
    free_pages: float
    quarantined: float
    rss_mib: float
    """Of the engine and its front together."""
    fds: int


@dataclass
class Soak:
    """What was seen."""

    looks: dict[str, list[Look]] = field(default_factory=dict)
    """By the decode node's URL."""
    num_turns: int = 0
    num_missed: int = 0
    """Full pages of earlier turns that were computed again."""
    failures: list[Failure] = field(default_factory=list)


def soak(loop: ManyNodes, load: ChatLoad, seconds: float, every_s: float = 1.0) -> Soak:
    """Hold chats, `at_once` all the time, for so long; then wait until the loop is idle."""
    return asyncio.run(_soak(loop, load, seconds, every_s))


async def _soak(loop: ManyNodes, load: ChatLoad, seconds: float, every_s: float) -> Soak:
    seen, began_at = Soak({node.url: [] for node in loop.decodes}), time.monotonic()
    watch = asyncio.create_task(_watch(loop.decodes, seen, began_at, every_s))
    clients = (
        _client(loop, load, number, began_at + seconds, seen) for number in range(load.at_once)
    )
    await asyncio.gather(*clients)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    await loop.settle()
    for node in loop.decodes:
        seen.looks[node.url].append(await asyncio.to_thread(look, node, began_at))
    return seen


async def _client(loop: ManyNodes, load: ChatLoad, number: int, until: float, seen: Soak) -> None:
    """One chat after the other, each with words of its own."""
    target = Target(url=loop.cluster.url, model="m", content="text")
    chat = 0
    async with open_session() as http:
        while time.monotonic() < until:
            chat += 1
            mine = replace(load, chats=1, at_once=1, seed=load.seed + 1_000_000 * number + chat)
            salt = secrets.token_hex(8)
            chats = Chats(http=http, target=target, load=mine, settle=loop.settle, salt=salt)
            await chats.hold()
            account = loop.account("soak", mine, chats)
            seen.num_turns += len(chats.turns)
            seen.num_missed += account.total.expected - account.total.found
            seen.failures += chats.failures


async def _watch(nodes: Sequence[Running], seen: Soak, began_at: float, every_s: float) -> None:
    while True:
        for node in nodes:
            seen.looks[node.url].append(await asyncio.to_thread(look, node, began_at))
        await asyncio.sleep(every_s)


def look(node: Running, began_at: float) -> Look:
    """One sample; every gauge must be there."""
    gauges = _gauges(fetch(f"{node.url}/metrics")[1])
    processes = [psutil.Process(node.process.pid), psutil.Process(engine_of(node))]
    return Look(
        at_s=time.monotonic() - began_at,
        backlog=gauges[GAUGES["backlog"]],
        staging=gauges[GAUGES["staging"]],
        free_pages=gauges[GAUGES["free pages"]],
        quarantined=gauges[GAUGES["quarantined"]],
        rss_mib=sum(process.memory_info().rss for process in processes) / _MIB,
        fds=sum(process.num_fds() for process in processes),
    )


def _gauges(text: str) -> Mapping[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}

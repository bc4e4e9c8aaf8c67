"""Watching a cluster's load: what nodes and routers count, from one look to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kvloop.operator.autoscale.load import ROLES, Loads, RoleLoad, RoleName
from kvloop.operator.errors import NodeError
from kvloop.operator.nodes.answers import Node
from kvloop.operator.nodes.client import NodeClient
from kvloop.operator.nodes.metrics import Histogram, Samples

WINDOW_S = 60.0
"""Looks are compared with the oldest one of this time."""
_SHORTEST_S = 5.0
_FEW = 5
"""A median of fewer observations is none."""
_NAMES = (
    "kvloop_queue_seconds",
    "kvloop_step_seconds",
    "kvloop_ttft_seconds",
    "kvloop_itl_seconds",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """Of one node or router."""

    at: float
    histograms: dict[str, Histogram]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one node or router counted between two looks."""

    seconds: float
    histograms: dict[str, Histogram]


@dataclass(slots=True)
class LoadWatch:
    """Of one cluster; keeps a minute of looks in memory. After a start the second look tells."""

    _scrapes: dict[str, list[Scrape]] = field(default_factory=dict)

    async def look(self, client: NodeClient, routers: Sequence[str], now: float) -> Loads:
        """Ask a router for its nodes, and all for their metrics. Raises NodeError where no router
        answers; a role of which one node's load is not known yet is left out."""
        nodes = await _nodes(client, routers)
        urls = [*routers, *(node.url for node in nodes)]
        found = await asyncio.gather(*(_scrape(client, url) for url in urls))
        windows = {
            url: self._window(url, samples, now)
            for url, samples in zip(urls, found, strict=True)
            if samples is not None
        }
        self._forget(urls)
        fronts = [windows[url] for url in routers if url in windows]
        return Loads(
            roles={role: load for role in ROLES if (load := _load(role, nodes, windows))},
            ttft_s=_median(fronts, "kvloop_ttft_seconds"),
            itl_s=_median(fronts, "kvloop_itl_seconds"),
        )

    def _window(self, url: str, samples: Samples, now: float) -> Window | None:
        """Since the oldest look that is not too old; None without one."""
        scrape = Scrape(at=now, histograms={name: samples.histogram(name) for name in _NAMES})
        kept = [one for one in self._scrapes.get(url, []) if now - one.at <= WINDOW_S]
        self._scrapes[url] = [*kept, scrape]
        if not kept or now - kept[0].at < _SHORTEST_S:
            return None
        before = kept[0].histograms
        counted = {name: one.since(before[name]) for name, one in scrape.histograms.items()}
        return Window(seconds=now - kept[0].at, histograms=counted)

    def _forget(self, urls: Iterable[str]) -> None:
        for gone in set(self._scrapes) - set(urls):
            del self._scrapes[gone]


async def _nodes(client: NodeClient, routers: Sequence[str]) -> list[Node]:
    """Nodes that one of the routers sends requests to."""
    problem = "there is no router"
    for url in routers:
        try:
            info = await client.router_info(url)
        except NodeError as error:
            problem = str(error)
        else:
            return [node for node in info.nodes if node.state == "ready"]
    raise NodeError(f"the load is not known: {problem}")


async def _scrape(client: NodeClient, url: str) -> Samples | None:
    try:
        return await client.metrics(url)
    except NodeError:
        return None


def _load(
    role: RoleName, nodes: Sequence[Node], windows: dict[str, Window | None]
) -> RoleLoad | None:
    mine = [node for node in nodes if node.role == role]
    known = [window for node in mine if (window := windows.get(node.url)) is not None]
    if not mine or len(known) < len(mine):
        return None
    waits, steps = _sum(known, "kvloop_queue_seconds"), _sum(known, "kvloop_step_seconds")
    total = sum(node.load.total_pages for node in mine)
    seconds = sum(window.seconds for window in known)
    return RoleLoad(
        ready=len(mine),
        running=sum(node.load.running for node in mine),
        waiting=sum(node.load.waiting for node in mine),
        pool_share=1 - sum(node.load.free_pages for node in mine) / total if total else 0.0,
        begun=waits.count,
        wait_s=waits.mean or 0.0,
        busy_share=min(steps.total / seconds, 1.0),
        window_s=seconds / len(known),
    )


def _median(windows: Sequence[Window | None], name: str) -> float | None:
    counted = _sum([window for window in windows if window is not None], name)
    return counted.quantile(0.5) if counted.count >= _FEW else None


def _sum(windows: Sequence[Window], name: str) -> Histogram:
    total = Histogram()
    for window in windows:
        total = total.plus(window.histograms[name])
    return total

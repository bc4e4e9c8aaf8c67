"""What SGLang's nodes count of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from kvloop.operator.errors import NodeError
from kvloop.operator.nodes.client import NodeClient
from kvloop.operator.nodes.metrics import Samples

TRANSFERS = "sglang:kv_transfer_latency_ms_count"
"""Hand-offs that ended well, of the node that sends."""
BACKED_UP = "sglang:backuped_tokens_total"
"""Tokens whose pages went to the shared cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Sums over nodes; None where no node counts such a thing yet."""

    transfers: float | None = None
    backed_up: float | None = None
    """By decode nodes."""
    faults: tuple[str, ...] = ()
    """Of nodes that could not be asked: then a sum that stays says nothing."""


async def read_counters(
    client: NodeClient, prefills: Sequence[str], decodes: Sequence[str]
) -> Counters:
    """All nodes at once; raises nothing for a node's fault."""
    found = await asyncio.gather(*(_scrape(client, url) for url in (*prefills, *decodes)))
    of_decodes = found[len(prefills) :]
    return Counters(
        transfers=_sum(found, TRANSFERS),
        backed_up=_sum(of_decodes, BACKED_UP),
        faults=tuple(str(one) for one in found if isinstance(one, NodeError)),
    )


async def _scrape(client: NodeClient, url: str) -> Samples | NodeError:
    try:
        return await client.metrics(url)
    except NodeError as error:
        return error


def _sum(scraped: Sequence[Samples | NodeError], name: str) -> float | None:
    counted = [one.sum(name) for one in scraped if isinstance(one, Samples)]
    known = [one for one in counted if one is not None]
    return sum(known) if known else None

"""Looking after the nodes that were named on the command line."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import msgspec

from kvloop.router.nodes import NodeRegistry
from kvloop.shared_cache.wire import NodeRecord, Role

log = logging.getLogger(__name__)


class _ServerInfo(msgspec.Struct):
    node: NodeRecord


async def poll_node(
    session: aiohttp.ClientSession, registry: NodeRegistry, role: Role, url: str, interval_s: float
) -> None:
    """Ask `url` for its record once every interval, for ever; silence lets the record expire."""
    while True:
        problem = await _look(session, registry, role, url, interval_s)
        if problem is None:
            registry.problems.pop(url, None)
        elif registry.problems.get(url) != problem:
            registry.problems[url] = problem
            log.info("%s node %s: %s", role, url, problem)
        await asyncio.sleep(interval_s)


async def _look(
    session: aiohttp.ClientSession, registry: NodeRegistry, role: Role, url: str, interval_s: float
) -> str | None:
    timeout = aiohttp.ClientTimeout(total=max(1.0, interval_s))
    try:
        async with session.get(
            f"{url.rstrip('/')}/server_info", timeout=timeout, allow_redirects=False
        ) as response:
            if response.status == 503:
                return "is starting"
            if response.status != 200:
                return f"/server_info answers HTTP {response.status}"
            record = msgspec.json.decode(await response.read(), type=_ServerInfo).node
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"does not answer: {str(error) or type(error).__name__}"
    except msgspec.DecodeError as error:
        return f"/server_info is not a kvloop node's: {error}"
    if record.role != role:
        return f"is a {record.role} node, but was named as --{role}"
    # the address we were given works from here; the node's own idea of it may not
    registry.update(msgspec.structs.replace(record, url=url))
    return None

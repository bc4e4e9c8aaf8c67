"""Server-side apply of one object, with a deadline."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from kvloop.benchmark.outlets.in_cluster import InCluster
from kvloop.benchmark.outlets.termination import shortened
from kvloop.shared_cache.errors import KVLoopError

FIELD_MANAGER = "kvloop-bench"
TRY_S = 20.0
"""Longest wait for one answer."""
TRIES_APART_S = 1.0
CUT_OFF = "TimeoutError"
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""JSON has them as they are; a YAML reader refuses them or takes them for the end of a line."""
RETRIED = (429, 500, 502, 503, 504)


class OutletError(KVLoopError):
    """A report could not be put where it was wanted."""


def apply(config_map: Mapping[str, Any], cluster: InCluster, deadline_s: float) -> None:
    """Create or change it; what others own of it is taken. Raises OutletError.

    Tries again for `deadline_s` seconds as long as the API server is away or busy.
    """
    asyncio.run(_apply(config_map, cluster, deadline_s))


def as_yaml(config_map: Mapping[str, Any]) -> bytes:
    """JSON that a YAML reader takes for the same: server-side apply reads YAML."""
    text = msgspec.json.encode(config_map).decode()
    return _NOT_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


async def _apply(config_map: Mapping[str, Any], cluster: InCluster, deadline_s: float) -> None:
    loop = asyncio.get_running_loop()
    ends_at, refusal = loop.time() + deadline_s, ""
    # A proxy of the environment is for the way out of a cluster: trust_env stays False.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=_trust(cluster))) as http:
        while (left_s := ends_at - loop.time()) > 0:
            said = await _try(http, config_map, cluster, min(TRY_S, left_s))
            if said is None:
                return
            if left_s >= TRY_S or said != CUT_OFF or not refusal:
                refusal = said  # a try that the deadline cut off tells less than one before it
            await asyncio.sleep(min(TRIES_APART_S, max(0.0, ends_at - loop.time())))
    raise OutletError(f"not done within {deadline_s:g} s; the last try: {refusal or 'none'}")


def _trust(cluster: InCluster) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(cluster.mount / "ca.crt"))
    except (OSError, ssl.SSLError) as error:
        raise OutletError(f"{cluster.mount}/ca.crt: {error}") from error


async def _try(
    http: aiohttp.ClientSession, config_map: Mapping[str, Any], cluster: InCluster, timeout_s: float
) -> str | None:
    """None when done, else why another try may help. Raises OutletError if none can."""
    metadata = config_map["metadata"]
    try:
        async with http.patch(
            f"{cluster.url}/api/v1/namespaces/{metadata['namespace']}/configmaps/{metadata['name']}",
            params={"fieldManager": FIELD_MANAGER, "force": "true"},
            data=as_yaml(config_map),
            headers={
                "Authorization": f"Bearer {cluster.token}",
                "Content-Type": "application/apply-patch+yaml",
                "Accept": "application/json",
            },
            timeout=aiohttp.ClientTimeout(total=timeout_s),
        ) as answer:
            if answer.status < 300:
                return None
            reason = _reason(answer.status, await answer.text(errors="replace"))
            if answer.status not in RETRIED:
                raise OutletError(reason + _advice(answer.status))
            return reason
    except aiohttp.ClientSSLError as error:
        raise OutletError(str(error)) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"{type(error).__name__}: {error}".removesuffix(": ")


def _reason(status: int, said: str) -> str:
    """What the API server says is wrong; its errors are `Status` objects."""
    try:
        message = str(msgspec.json.decode(said)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        message = said
    return f"HTTP {status}: {shortened(message, 300)}"


def _advice(status: int) -> str:
    match status:
        case 401:
            return " (the service account's token is not accepted)"
        case 403:
            return " (its service account needs the verbs create and patch on configmaps)"
        case _:
            return ""

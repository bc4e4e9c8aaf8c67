"""Asks a router for a canary."""

from __future__ import annotations

import json

import aiohttp
import msgspec

from kvloop.router.canary.report import Report


class NotAsked(Exception):
    """The router could not be asked, or refused; says why."""


async def ask_canary(url: str, key: str | None, timeout_s: float) -> Report:
    """Run one and return what it found; raises NotAsked."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        # trust_env=False: a proxy from the environment has no way to loopback
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as http,
            http.post(f"{url}/canary", headers=headers, allow_redirects=False) as answer,
        ):
            body = await answer.read()
            if answer.status != 200:
                raise NotAsked(_refusal(url, answer.status, body))
            return msgspec.json.decode(body, type=Report)
    except msgspec.DecodeError as error:
        raise NotAsked(f"{url} is no kvloop router: {error}") from None
    except TimeoutError:
        raise NotAsked(f"{url} gave no answer in {timeout_s:g} s (--timeout-s)") from None
    except (aiohttp.ClientError, OSError) as error:
        raise NotAsked(f"cannot reach {url}: {str(error) or type(error).__name__}") from None


def _refusal(url: str, status: int, body: bytes) -> str:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        message = "is it a kvloop router?"
    hint = "; give it with --admin-api-key" if status == 401 else ""
    return f"{url} answers HTTP {status}: {message}{hint}"

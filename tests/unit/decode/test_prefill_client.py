"""When a sender that was given up counts as dead, so that its pages may be used again."""

from __future__ import annotations

import asyncio
import errno
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from kvloop.decode import prefill_client
from kvloop.decode.prefill_client import PrefillClient
from kvloop.engine.messages import AttemptQuiet, GiveUp, ToEngine

GIVE_UP = GiveUp(url="http://10.9.9.9:1", incarnation="i", request_id="r", attempt="a")


def no_connection(number: int) -> aiohttp.ClientConnectorError:
    key = ConnectionKey("10.9.9.9", 1, False, True, None, None, None)
    return aiohttp.ClientConnectorError(key, OSError(number, "no connection"))


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(prefill_client, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(prefill_client, "asyncio", SimpleNamespace(sleep=self.sleep))

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def client_that_meets(error: Exception, told: list[ToEngine]) -> PrefillClient:
    client = PrefillClient(cast(aiohttp.ClientSession, None), told.append)

    async def cancel(*_: object) -> str | None:
        raise error

    cast(Any, client)._cancel = cancel
    return client


@pytest.mark.parametrize(
    "error",
    [
        no_connection(errno.EHOSTUNREACH),
        no_connection(errno.ENETUNREACH),
        aiohttp.ConnectionTimeoutError(),
    ],
    ids=["no route to host", "no network", "no answer to a connect"],
)
async def test_an_address_that_takes_no_connection_for_twenty_minutes_is_a_dead_senders(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, told = Clock(monkeypatch), list[ToEngine]()
    await client_that_meets(error, told).give_up(GIVE_UP)
    assert told == [AttemptQuiet("a", "dead")]
    assert 1200 <= clock.now <= 1210


async def test_the_attempts_own_time_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(monkeypatch), list[ToEngine]()
    client = client_that_meets(no_connection(errno.EHOSTUNREACH), told)
    client._ends_at["a"] = 3600.0
    await client.give_up(GIVE_UP)
    assert told and 4800 <= clock.now <= 4810
    assert client._ends_at == {}


async def test_three_refused_connections_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(monkeypatch), list[ToEngine]()
    await client_that_meets(no_connection(errno.ECONNREFUSED), told).give_up(GIVE_UP)
    assert told == [AttemptQuiet("a", "dead")]
    assert clock.now < 5


async def test_who_listens_and_says_nothing_is_never_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, told = Clock(monkeypatch), list[ToEngine]()
    client = client_that_meets(TimeoutError(), told)
    plain_sleep = clock.sleep

    async def sleep(seconds: float) -> None:
        await plain_sleep(seconds)
        if clock.now > 10_000:
            raise asyncio.CancelledError

    monkeypatch.setattr(prefill_client, "asyncio", SimpleNamespace(sleep=sleep))
    with pytest.raises(asyncio.CancelledError):
        await client.give_up(GIVE_UP)
    assert told == []

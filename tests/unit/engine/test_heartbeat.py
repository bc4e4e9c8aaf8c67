"""Every address of a router's name is told, whatever the others do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import aiohttp
import pytest

from kvloop.engine import heartbeat
from kvloop.engine.heartbeat import Heartbeats, RouterAddress, resolve

ONE, TWO, THREE = (
    RouterAddress(url=f"http://10.0.0.{n}:8000", host="routers:8000") for n in (1, 2, 3)
)


class Routers:
    """Behind one name; some hang, some refuse, some are unknown to the resolver."""

    def __init__(self) -> None:
        self.addresses = [ONE, TWO]
        self.told: Counter[RouterAddress] = Counter()
        self.hangs: set[RouterAddress] = set()
        self.is_known = True

    async def resolve(self, url: str) -> list[RouterAddress]:
        assert url == "http://routers:8000"
        if not self.is_known:
            raise OSError("name not known")
        return self.addresses

    async def post(self, address: RouterAddress) -> None:
        self.told[address] += 1
        if address in self.hangs:
            await asyncio.sleep(60)
        if self.told[address] % 2:
            raise aiohttp.ClientConnectionError("refused")


@pytest.fixture
def routers(monkeypatch: pytest.MonkeyPatch) -> Routers:
    monkeypatch.setattr(heartbeat, "_EVERY_S", 0.01)
    monkeypatch.setattr(heartbeat, "_RESOLVE_EVERY_S", 0.02)
    return Routers()


async def during(routers: Routers, *steps: Callable[[], bool]) -> None:
    """Run heartbeats until each step in turn has come true."""
    beats = Heartbeats("http://routers:8000", routers.post, routers.resolve)
    task = asyncio.create_task(beats.run())
    try:
        async with asyncio.timeout(20):
            for step in steps:
                while not step():
                    await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_address_is_told_again_and_again_also_after_refusals(routers: Routers) -> None:
    await during(routers, lambda: routers.told[ONE] > 4 and routers.told[TWO] > 4)


async def test_a_router_that_hangs_delays_no_other(routers: Routers) -> None:
    routers.hangs = {ONE}
    await during(routers, lambda: routers.told[TWO] > 4)
    assert routers.told[ONE] == 1


async def test_routers_that_come_are_told_and_those_that_go_no_more(routers: Routers) -> None:
    def change() -> bool:
        routers.addresses = [TWO, THREE]
        return True

    before: list[int] = []

    def has_moved() -> bool:
        if routers.told[THREE] and not before:
            before.append(routers.told[ONE])
        return routers.told[THREE] > 10

    await during(routers, lambda: routers.told[ONE] > 1, change, has_moved)
    assert routers.told[ONE] == before[0]


async def test_a_name_that_is_not_known_for_a_while_keeps_its_addresses(routers: Routers) -> None:
    def forget() -> bool:
        routers.is_known = False
        routers.told.clear()
        return True

    await during(routers, lambda: routers.told[ONE] > 1, forget, lambda: routers.told[ONE] > 20)


async def test_a_name_that_is_not_known_yet_is_asked_for_again(routers: Routers) -> None:
    routers.is_known = False

    async def appear() -> None:
        await asyncio.sleep(0.05)
        routers.is_known = True

    task = asyncio.create_task(appear())
    await during(routers, lambda: routers.told[ONE] > 1)
    await task


async def test_no_beat_outlives_the_heartbeats(routers: Routers) -> None:
    await during(routers, lambda: routers.told[ONE] > 1)
    routers.told.clear()
    await asyncio.sleep(0.1)
    assert not routers.told


async def test_addresses_are_those_of_the_name_with_its_port_and_host() -> None:
    assert await resolve("http://127.0.0.1:8000") == [
        RouterAddress(url="http://127.0.0.1:8000", host="127.0.0.1:8000")
    ]
    assert (await resolve("http://[::1]:8000"))[0].url == "http://[::1]:8000"
    assert (await resolve("https://127.0.0.1"))[0].url == "https://127.0.0.1:443"
    named = await resolve("http://localhost:81")
    assert {address.host for address in named} == {"localhost:81"}
    with pytest.raises(OSError, match=r".+"):
        await resolve("http://no-such-name.invalid:1")

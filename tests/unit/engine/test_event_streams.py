import asyncio

from kvloop.engine.event_streams import EventStreams


async def test_waiting_for_the_end_of_streams_ends_with_the_last_of_them() -> None:
    streams: EventStreams[int] = EventStreams()

    async def use() -> None:
        with streams.open("a"):
            await asyncio.sleep(0.2)

    using = asyncio.create_task(use())
    await asyncio.sleep(0)
    assert await streams.wait_empty(30)
    assert using.done()


async def test_streams_that_go_on_are_waited_for_no_longer_than_was_said() -> None:
    streams: EventStreams[int] = EventStreams()
    with streams.open("a"):
        assert not await streams.wait_empty(0.05)


async def test_without_streams_nothing_is_waited_for() -> None:
    assert await EventStreams[int]().wait_empty(0)

"""When requests go out, how many at once, and what a server says of its models."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest
from driving import Notes, Talk, hold, sample_of, segment, turns
from stub_process import running_stub

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.api import ServedModel, find_model, open_session
from kvloop.benchmark.workloads.plan import Conversation, Turn
from kvloop.shared_cache.errors import ConfigError

pytestmark = pytest.mark.integration

_CLOCK_S = 0.005
"""Timers may be early by their resolution."""


def test_a_client_thinks_before_its_next_turn_and_that_is_not_lateness() -> None:
    with running_stub() as stub:
        driven = hold(stub.url, Talk(conversations=[turns(2, think_s=2.0)]), time_scale=4)
    first, second = driven.samples
    assert first.sent_at >= 0.5 - _CLOCK_S  # its first turn has think_s too
    assert second.sent_at - first.ended_at >= 0.5 - _CLOCK_S
    assert second.late_s < 0.5 and second.queued_s < 0.5


def test_turns_with_a_time_go_out_at_it_or_late_when_the_one_before_is_unanswered() -> None:
    timed = Conversation(turns=(Turn(output_length=1, at_s=50.0), Turn(output_length=1, at_s=50.1)))
    later = Conversation(turns=(Turn(output_length=1, at_s=50.3),))
    with running_stub("--first-ms", "400") as stub:
        driven = hold(stub.url, Talk(conversations=[timed, later]))
    slow = sample_of(driven, 0, 2)
    assert slow.sent_at >= sample_of(driven, 0, 1).ended_at
    assert slow.late_s >= 0.3 - _CLOCK_S
    assert sample_of(driven, 1, 1).sent_at >= 0.3 - _CLOCK_S


def test_a_segments_rate_spreads_first_turns_and_a_full_house_makes_them_late() -> None:
    talk = Talk(conversations=[turns(1) for _ in range(5)])
    segments = [segment(talk, rate=10.0)]
    with running_stub("--first-ms", "300") as stub:
        spread = hold(stub.url, talk, segments=segments, arrival="uniform")
        full = hold(stub.url, talk, segments=segments, arrival="uniform", clients=1)
    sent = [sample_of(spread, number, 1).sent_at for number in range(5)]
    assert all(at >= 0.1 * number - _CLOCK_S for number, at in enumerate(sent))
    assert spread.segments[0].rate == 10.0
    assert sample_of(full, 4, 1).late_s >= 4 * 0.3 - 4 * 0.1 - 5 * _CLOCK_S
    assert full.cost.most_streams == 1


def test_what_listeners_take_between_segments_is_no_lag_of_the_drivers() -> None:
    class Slow(Notes):
        def began(self, segment: Segment) -> None:
            time.sleep(1)

        def ended(self, result: object) -> None:
            time.sleep(1)

    talk = Talk(conversations=[turns(1)])
    with running_stub("--first-ms", "50") as stub:
        driven = hold(stub.url, talk, segments=[segment(talk)] * 2, listener=Slow())
    assert driven.cost.lag_ms is None or driven.cost.lag_ms.max < 800


def test_a_loop_that_is_late_while_clients_think_is_no_lag_of_the_drivers() -> None:
    class Late(Notes):
        def outcome(self, outcome: object) -> None:
            asyncio.get_running_loop().call_later(0.2, time.sleep, 1)

    with running_stub() as stub:
        driven = hold(stub.url, Talk(conversations=[turns(2, think_s=2.0)]), listener=Late())
    assert driven.cost.lag_ms is None or driven.cost.lag_ms.max < 800


def test_one_process_holds_500_streams() -> None:
    talk = Talk(conversations=[Conversation(turns=(Turn(output_length=8),))] * 500)
    with running_stub("--first-ms", "3000", "--interval-ms", "100") as stub:
        driven = hold(stub.url, talk, timeout_s=120)
        assert stub.seen()["most_streams"] == 500
    assert len(driven.samples) == driven.cost.most_streams == 500
    assert all(len(one.itl_s) == 7 for one in driven.samples)


def test_the_collector_does_not_look_through_old_objects_during_a_run() -> None:
    class Counting(Notes):
        frozen = 0

        def sent(self) -> None:
            self.frozen = gc.get_freeze_count()

    counting = Counting()
    with running_stub() as stub:
        hold(stub.url, Talk(conversations=[turns(1)]), listener=counting)
    assert counting.frozen > 10_000 and gc.get_freeze_count() == 0


async def test_the_servers_first_model_is_taken_with_its_context() -> None:
    with running_stub("--context", "2048") as stub:
        async with open_session() as http:
            assert await find_model(http, stub.url, None) == ServedModel(name="stub", context=2048)
            other = await find_model(http, stub.url, None, "other")
    assert other == ServedModel(name="other", context=None)


async def test_kvloop_says_of_its_models_that_they_are_its_own() -> None:
    with running_stub("--kvloop") as ours, running_stub() as other:
        async with open_session() as http:
            assert (await find_model(http, ours.url, None)).is_kvloop
            assert not (await find_model(http, other.url, None)).is_kvloop


async def test_a_server_that_is_not_there_is_named() -> None:
    with running_stub() as stub:
        pass
    async with open_session() as http:
        with pytest.raises(ConfigError, match="is a server there"):
            await find_model(http, stub.url, None)


async def test_a_server_that_wants_a_key_gets_it_and_without_it_the_flag_is_named() -> None:
    talk = Talk(conversations=[turns(1)])
    with running_stub("--api-key", "sesame") as stub:
        async with open_session() as http:
            assert (await find_model(http, stub.url, "sesame")).name == "stub"
            with pytest.raises(ConfigError, match="--api-key"):
                await find_model(http, stub.url, None)
        # its own loop, in a thread: signals are not its business there
        without = await asyncio.to_thread(hold, stub.url, talk)
        known = await asyncio.to_thread(hold, stub.url, talk, target={"api_key": "sesame"})
    assert without.failures[0].kind == "http_401" and len(known.samples) == 1

"""Small parts of the driver."""

from __future__ import annotations

import asyncio
import resource
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.api import Exchange
from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.forks import Forks, Standing
from kvloop.benchmark.driver.gate import Gate
from kvloop.benchmark.driver.history import IdHistory, TextHistory, num_equal
from kvloop.benchmark.driver.listener import Listeners, Silence
from kvloop.benchmark.driver.loop import allow_open_files, run
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.outcome import Place, Plan, to_sample
from kvloop.benchmark.driver.patience import Patience
from kvloop.benchmark.driver.retry_after import parse_retry_after
from kvloop.benchmark.driver.stream import StreamedAnswer
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.driver.watch import ServerWatch
from kvloop.benchmark.results.document import SegmentResult
from kvloop.benchmark.sample import Failure, Sample
from kvloop.benchmark.workloads.plan import Branch, Conversation, Said, Turn
from kvloop.shared_cache.errors import ConfigError

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 12:00:30 -0000", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("inf", None),
    ],
)
def test_a_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    "field",
    [
        *("clients", "max_in_flight", "timeout_s", "stall_timeout_s", "time_scale"),
        *("max_retry_after_s", "give_up_after", "probe_s"),
    ],
)
def test_an_option_that_must_be_above_nothing_names_its_flag(field: str) -> None:
    with pytest.raises(ConfigError, match=f"--{field.replace('_', '-')} must be above 0, got 0"):
        DriveOptions(**{field: 0})


@pytest.mark.parametrize("field", ["warmup", "retry_429", "pause_s"])
def test_an_option_that_may_be_nothing_may_not_be_less(field: str) -> None:
    assert DriveOptions(**{field: 0})
    with pytest.raises(ConfigError, match="0 or above"):
        DriveOptions(**{field: -1})


def test_an_unknown_arrival_is_refused() -> None:
    with pytest.raises(ConfigError, match="--arrival must be poisson or uniform"):
        DriveOptions(arrival="bursts")  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 1), max_size=30), st.lists(st.integers(0, 1), max_size=30))
def test_equal_items_at_the_start_are_counted(left: list[int], right: list[int]) -> None:
    expected = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        expected += 1
    assert num_equal(left, right) == num_equal(tuple(left), right) == expected


def answer(*ids: int) -> StreamedAnswer:
    return StreamedAnswer(ids=list(ids))


def test_a_history_of_ids_cannot_go_on_without_an_answers_ids() -> None:
    history, said = IdHistory(), Said(ids=(1, 2))
    history.say(said)
    with pytest.raises(BadAnswer, match="use --text") as caught:
        history.hear(said, answer())
    assert caught.value.kind == "no_token_ids"


def test_a_prompt_that_was_sent_does_not_grow_with_the_history() -> None:
    history, said = IdHistory(), Said(ids=(1, 2))
    prompt = history.say(said)
    history.hear(said, answer(3))
    assert prompt == [1, 2] and history.say(Said(ids=(4,))) == [1, 2, 3, 4]


def test_a_copied_history_goes_its_own_way() -> None:
    history = TextHistory([{"role": "user", "content": "a"}])
    branch = history.copy()
    history.hear(Said(answer="b"), answer())
    assert len(branch.say(Said())) == 1 and len(history.say(Said())) == 2


def parent_and_branches() -> list[Conversation]:
    turn = Turn(output_length=1)
    branches = [Conversation(turns=(turn,), branch=Branch(parent=0, turns=n)) for n in (1, 2, 1)]
    return [Conversation(turns=(turn, turn)), *branches]


async def test_all_branches_of_a_turn_get_a_history_of_their_own() -> None:
    forks = Forks(parent_and_branches(), range(4))
    forks.offer(0, Standing(history=IdHistory([1]), turns=1, reusable_tokens=5))
    one, other = [await forks.wait(Branch(parent=0, turns=1)) for _ in range(2)]
    assert one is not None and other is not None
    assert one.history is not other.history and one.history.say(Said()) == [1]
    assert (one.turns, one.reusable_tokens) == (1, 5)


async def test_a_turn_that_is_never_reached_has_no_branch() -> None:
    forks = Forks(parent_and_branches(), range(4))
    waiting = asyncio.create_task(forks.wait(Branch(parent=0, turns=2)))
    forks.offer(0, Standing(history=IdHistory([1]), turns=1))
    forks.end(0)
    assert await waiting is None
    assert await forks.wait(Branch(parent=0, turns=1)) is not None


def test_histories_are_kept_only_for_branches_that_are_held() -> None:
    async def awaited() -> list[bool]:
        forks = Forks(parent_and_branches(), [0, 1])
        return [forks.is_awaited(0, turns) for turns in (1, 2)]

    assert asyncio.run(awaited()) == [True, False]


async def test_a_branch_without_its_parent_is_refused_rather_than_waited_for() -> None:
    with pytest.raises(AssertionError):
        Forks(parent_and_branches(), [1, 2])


async def test_patience_leaves_a_talking_stream_alone_and_ends_a_silent_one() -> None:
    async with Patience(20.0, 0.6) as patience:
        for _ in range(5):
            await asyncio.sleep(0.15)
            patience.heard_at = asyncio.get_running_loop().time()
    with pytest.raises(BadAnswer) as caught:
        async with Patience(20.0, 0.1):
            await asyncio.sleep(10)
    assert caught.value.kind == "stalled"


async def test_an_answer_that_talks_on_and_on_is_ended_at_its_deadline() -> None:
    with pytest.raises(BadAnswer, match="1 s") as caught:
        async with Patience(1.0, 0.9) as patience:
            while True:
                await asyncio.sleep(0.01)
                patience.heard_at = asyncio.get_running_loop().time()
    assert caught.value.kind == "timeout"


async def test_patience_that_was_not_needed_leaves_nothing_behind() -> None:
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    async with Patience(0.1, 0.1):
        pass
    await asyncio.sleep(0.2)
    assert not wrong


async def test_a_cancelled_request_is_cancelled_not_late() -> None:
    async def request() -> None:
        async with Patience(20.0, 20.0):
            await asyncio.sleep(10)

    task = asyncio.create_task(request())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_only_losses_in_a_row_have_the_server_probed_and_each_such_row_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probes, gone = list[Any](), list[str]()

    async def is_alive(http: object, url: str, within_s: float) -> bool:
        probes.append(url)
        return True

    monkeypatch.setattr("kvloop.benchmark.driver.watch.is_alive", is_alive)
    options = DriveOptions(give_up_after=2)
    watch = ServerWatch(None, "u", options, gone.append)  # type: ignore[arg-type]
    for kind in ("connect", None, "disconnect", "http_503", "stalled", "timeout", "connect"):
        watch.note(kind)
    await watch.passed()
    assert not probes
    for num in (1, 2):
        watch.note("stalled")
        watch.note("disconnect")
        await watch.passed()
        assert len(probes) == num and not gone
    await watch.close()


async def test_a_server_that_answers_no_probe_is_gone_and_is_not_asked_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probes, gone = list[Any](), list[str]()

    async def is_alive(http: object, url: str, within_s: float) -> bool:
        await asyncio.sleep(0)
        probes.append(within_s)
        return False

    monkeypatch.setattr("kvloop.benchmark.driver.watch.is_alive", is_alive)
    options = DriveOptions(give_up_after=1, probe_s=0.2)
    watch = ServerWatch(None, "u", options, gone.append)  # type: ignore[arg-type]
    watch.note("connect")
    await watch.passed()
    assert 1 <= len(probes) <= 3 and max(probes) <= 0.2
    (words,) = gone
    assert "1 requests in a row" in words and "for 0.2 s" in words


async def test_the_watch_hears_of_answers_and_of_every_kind_of_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds, heard = ["connect", None, "http_429", "http_429", None], list[str | None]()

    async def ask(*_: object, **__: object) -> None:
        if (kind := kinds.pop(0)) is not None:
            raise BadAnswer(kind, "", retry_after_s=0.0)

    class Spy:
        note = heard.append

        async def passed(self) -> None:
            heard.append("passed")

    monkeypatch.setattr("kvloop.benchmark.driver.gate.ask", ask)
    monkeypatch.setattr("kvloop.benchmark.driver.gate._RETRY_AFTER_S", 600.0)
    target = Target(url="u", model="m")
    gate = Gate(None, target, DriveOptions(retry_429=2), Silence(), Spy())  # type: ignore[arg-type]
    with pytest.raises(BadAnswer):
        await gate.ask({})
    await gate.ask({})
    async with asyncio.timeout(20):  # it was told to come again at once
        await gate.ask({})
    assert heard == ["passed", "connect", "passed", None, "passed", "http_429", "http_429", None]
    assert (gate.streams, gate.most_streams, gate.num_retries) == (0, 1, 2)


PLAN = Plan(due_at=0.0, ready_at=0.0, output_length=1, reusable_tokens=0)
COUNTED = {"prompt_tokens": 5, "completion_tokens": 1}


def sample_with(usage: dict[str, Any]) -> Sample:
    heard = StreamedAnswer(ids=[7], arrivals=[(2.0, 1)], ended_at=3.0)
    exchange = Exchange(answer=heard, usage=usage, sent_at=1.0, ended_at=3.0)
    return to_sample(
        Place(conversation=0, turn=1, arm="on", step=0, round=0), PLAN, exchange, start=0.5
    )


def test_a_usage_that_can_be_counted_with_is_all_that_a_sample_needs() -> None:
    one = sample_with(COUNTED)
    assert (one.prompt_tokens, one.completion_tokens, one.cached_tokens) == (5, 1, None)
    assert (one.sent_at, one.ended_at, one.ttft_s) == (0.5, 2.5, 1.0)
    details = {"prompt_tokens_details": {"cached_tokens": 4}}
    assert sample_with({**COUNTED, **details}).cached_tokens == 4
    told = sample_with({**COUNTED, "kvloop": {"device": 4, "fallback": "no_decode"}})
    assert told.fallback == "no_decode" and told.sources is not None and told.sources.device == 4


def test_a_samples_times_have_microseconds_and_no_more_digits() -> None:
    heard = StreamedAnswer(ids=[7, 8], arrivals=[(2.0, 1), (7 / 3, 1)], ended_at=3.0)
    exchange = Exchange(answer=heard, usage=COUNTED, sent_at=4 / 3, ended_at=3.0)
    place = Place(conversation=0, turn=1, arm="on", step=0, round=0)
    one = to_sample(place, PLAN, exchange, start=0.0)
    assert (one.sent_at, one.ttft_s, one.itl_s) == (1.333333, 0.666667, (0.333333,))


@pytest.mark.parametrize(
    ("usage", "named"),
    [
        ({"completion_tokens": 1}, "usage.prompt_tokens"),
        ({"prompt_tokens": 5}, "usage.completion_tokens"),
        ({**COUNTED, "prompt_tokens": "5"}, "usage.prompt_tokens"),
        ({**COUNTED, "completion_tokens": -1}, "usage.completion_tokens"),
        ({**COUNTED, "prompt_tokens_details": {"cached_tokens": "x"}}, "cached_tokens"),
        ({**COUNTED, "kvloop": {"device": None}}, "usage.kvloop"),
        ({**COUNTED, "kvloop": {"by_writer": [1]}}, "usage.kvloop"),
    ],
)
def test_a_usage_that_cannot_be_counted_with_is_a_bad_answer_not_the_end(
    usage: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadAnswer, match=named) as caught:
        sample_with(usage)
    assert caught.value.kind == "bad_usage"


class Loud(Silence):
    """Says what it heard."""

    def __init__(self, heard: list[str], name: str) -> None:
        self._heard, self._name = heard, name

    def began(self, segment: Segment) -> None:
        self._heard.append(f"{self._name} began")

    def sent(self) -> None:
        self._heard.append(f"{self._name} sent")

    def outcome(self, outcome: Sample | Failure) -> None:
        self._heard.append(f"{self._name} outcome")

    def ended(self, result: SegmentResult) -> None:
        self._heard.append(f"{self._name} ended")


def test_several_listeners_are_told_everything_in_order() -> None:
    heard: list[str] = []
    both = Listeners(Loud(heard, "a"), Silence(), Loud(heard, "b"))
    both.began(Segment(arm="on", step=0, round=0, conversations=(), salt=""))
    both.sent()
    both.outcome(Failure(conversation=0, turn=1, kind="x", message=""))
    both.ended(SegmentResult(arm="on", step=0, round=0, rate=None, began_at=0, ended_at=1))
    whats = ("began", "sent", "outcome", "ended")
    assert heard == [f"{who} {what}" for what in whats for who in "ab"]


def test_the_limit_of_open_files_is_raised_and_never_lowered() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        seen = []
        for most in (300, 280):
            allow_open_files(most)
            seen.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        assert seen == [300, 300]
        run(asyncio.sleep(0))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

"""Small parts of the driver."""

from __future__ import annotations

import asyncio
import resource
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.forks import Forks, Standing
from kvloop.benchmark.driver.history import IdHistory, TextHistory, num_equal
from kvloop.benchmark.driver.listener import Listeners, Silence
from kvloop.benchmark.driver.loop import allow_open_files
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.patience import Patience
from kvloop.benchmark.driver.retry_after import parse_retry_after
from kvloop.benchmark.driver.stream import StreamedAnswer
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


async def test_a_cancelled_request_is_cancelled_not_late() -> None:
    async def request() -> None:
        async with Patience(20.0, 20.0):
            await asyncio.sleep(10)

    task = asyncio.create_task(request())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


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
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

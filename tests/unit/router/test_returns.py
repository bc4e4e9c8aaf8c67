"""Which sessions are expected to return."""

from __future__ import annotations

from typing import Any

import pytest

from kvloop.router.returns import MIN_SESSIONS, Returns, turn_of

HORIZON_S = 100.0


def chat(*questions: str, system: str = "", answer: str = "Well") -> list[Any]:
    messages = [{"role": "system", "content": system}] if system else []
    for question in questions:
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    return messages[:-1]


class Sessions:
    """Chats with a judge, on a clock that tests turn."""

    def __init__(self, **bounds: Any) -> None:
        self.seen: list[tuple[bool | None, bool]] = []
        self.returns = Returns(HORIZON_S, lambda *seen: self.seen.append(seen), **bounds)
        self.now = 0.0

    def ask(self, messages: Any, tenant: str = "t", seed: bytes | None = None) -> bool | None:
        turn = turn_of(tenant, seed, messages)
        expected = self.returns.asked(turn, self.now)
        self.returns.answered(turn, expected, self.now)
        return expected

    def one_shots(self, count: int, **options: Any) -> None:
        system = options.pop("system", "")
        for number in range(count):
            self.ask(chat(f"one {number} at {self.now}", system=system), **options)
        self.now += HORIZON_S + 1

    def two_turns(self, count: int, **options: Any) -> None:
        for number in range(count):
            first = f"two {number} at {self.now}"
            self.ask(chat(first), **options)
            self.ask(chat(first, "more"), **options)


def test_nothing_is_said_until_enough_sessions_are_over() -> None:
    sessions = Sessions()
    sessions.one_shots(MIN_SESSIONS - 1)
    assert sessions.ask(chat("new")) is None
    sessions.now += HORIZON_S + 1
    sessions.one_shots(2)
    assert sessions.ask(chat("newer")) is False


def test_sessions_that_return_are_expected_to() -> None:
    sessions = Sessions()
    sessions.two_turns(3 * MIN_SESSIONS)
    assert sessions.ask(chat("new")) is True


@pytest.mark.parametrize(("one_in", "expected"), [(10, False), (3, True)])
def test_sessions_that_return_now_and_then_are_expected_to_if_storing_pays(
    one_in: int, expected: bool
) -> None:
    sessions = Sessions()
    for number in range(10 * one_in):
        sessions.ask(chat(f"one {number}"))
        if number % one_in == 0:
            sessions.ask(chat(f"one {number}", "more"))
    sessions.now += HORIZON_S + 1
    assert sessions.ask(chat("new")) is expected


def test_each_depth_is_judged_by_itself() -> None:
    sessions = Sessions()
    sessions.two_turns(3 * MIN_SESSIONS)
    sessions.now += HORIZON_S + 1
    assert sessions.ask(chat("new")) is True
    assert sessions.ask(chat("new", "more")) is False
    assert sessions.ask(chat("new", "more", "still more")) is None


def test_deep_turns_are_of_one_kind() -> None:
    sessions = Sessions()
    questions: list[str] = []
    for number in range(3 * MIN_SESSIONS):
        questions.append(str(number))
        said = sessions.ask(chat(*questions))
    assert said is True


def test_tenants_and_system_prompts_are_kept_apart() -> None:
    sessions = Sessions()
    sessions.one_shots(2 * MIN_SESSIONS, system="Sum it up")
    assert sessions.ask(chat("new", system="Sum it up")) is False
    assert sessions.ask(chat("new", system="Be kind")) is None
    assert sessions.ask(chat("new", system="Sum it up"), tenant="other") is None


def test_a_change_of_habit_is_followed() -> None:
    sessions = Sessions()
    sessions.two_turns(300)
    assert sessions.ask(chat("new")) is True
    for _ in range(10):
        sessions.one_shots(60)
    assert sessions.ask(chat("newer")) is False


def test_a_return_after_the_horizon_comes_too_late() -> None:
    sessions = Sessions()
    sessions.ask(chat("a"))
    sessions.now += HORIZON_S + 1
    sessions.ask(chat("a", "b"))
    assert sessions.seen == [(None, False)]


def test_a_return_within_the_horizon_counts() -> None:
    sessions = Sessions()
    sessions.ask(chat("a"))
    sessions.now += HORIZON_S - 0.1
    sessions.ask(chat("a", "b"))
    assert sessions.seen == [(None, True)]


def test_a_session_is_known_by_its_questions_whatever_became_of_the_answers() -> None:
    sessions = Sessions()
    sessions.ask(chat("a", answer="<think>Hm</think>Well"))
    sessions.ask(chat("a", "b", answer="Well"))
    assert sessions.seen == [(None, True)]


def test_other_questions_depths_and_seeds_are_other_sessions() -> None:
    sessions = Sessions()
    sessions.ask(chat("a", "b"))
    sessions.ask(chat("a", "c", "d"))
    sessions.ask(chat("a", "b", "b"), seed=b"salt")
    sessions.ask([*chat("a"), *chat("b")])
    sessions.ask([message | {"name": "Ann"} for message in chat("a", "b", "c")])
    assert sessions.seen == []
    sessions.ask(chat("a", "b", "c"))
    assert sessions.seen == [(None, True)]


def test_turns_of_sessions_that_began_elsewhere_count_as_returns() -> None:
    sessions = Sessions()
    for number in range(2 * MIN_SESSIONS):
        sessions.ask(chat(f"here {number}"))
        sessions.ask(chat(f"elsewhere {number}", "more"))
    sessions.now += HORIZON_S + 1
    assert sessions.ask(chat("new")) is True


def test_many_returns_from_elsewhere_do_not_hide_sessions_that_end() -> None:
    sessions = Sessions()
    for number in range(5000):
        sessions.ask(chat(f"elsewhere {number}", "more"))
    for _ in range(12):
        sessions.one_shots(60)
    assert sessions.ask(chat("new")) is False


def test_sessions_that_begin_alike_are_counted_each() -> None:
    sessions = Sessions()
    for _ in range(2 * MIN_SESSIONS):
        sessions.ask(chat("Hi"))
    sessions.now += HORIZON_S + 1
    assert sessions.ask(chat("Hi")) is False
    for number in range(10 * MIN_SESSIONS):
        sessions.ask(chat("Hi"))
        sessions.ask(chat("Hi"))
        sessions.ask(chat("Hi", f"more {number}"))
        sessions.ask(chat("Hi", f"other {number}"))
    assert sessions.ask(chat("Hi")) is True


def test_what_was_expected_is_told_with_what_came() -> None:
    sessions = Sessions()
    sessions.one_shots(2 * MIN_SESSIONS)
    sessions.ask(chat("a"))
    sessions.ask(chat("b"))
    sessions.ask(chat("b", "more"))
    assert sessions.seen[-1] == (False, True)
    sessions.now += HORIZON_S + 1
    sessions.ask(chat("c"))
    assert sessions.seen[-2:] == [(False, False), (None, False)]


def test_memory_is_bounded_in_turns_and_kinds() -> None:
    sessions = Sessions(max_open=10, max_kinds=5)
    for number in range(100):
        sessions.ask(chat(f"one {number}"), tenant=str(number))
    assert len(sessions.returns) == 10
    assert len(sessions.returns._tallies) == 5


def test_many_old_turns_are_closed_in_several_steps() -> None:
    sessions = Sessions()
    for number in range(2500):
        sessions.ask(chat(f"one {number}"))
    sessions.now += HORIZON_S + 1
    turn = turn_of("t", None, chat("new"))
    left = []
    for _ in range(3):
        sessions.returns.asked(turn, sessions.now)
        left.append(len(sessions.returns))
    assert left == [1500, 500, 0]


def test_a_chat_without_a_question_is_survived() -> None:
    sessions = Sessions()
    assert sessions.ask([{"role": "assistant", "content": "Hello"}]) is None
    assert sessions.ask([{"role": "system", "content": "Be kind"}]) is None

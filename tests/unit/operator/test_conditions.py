"""Conditions change their time only when their status changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from kvloop.operator.conditions import as_status, condition, conditions_of, with_condition
from kvloop.operator.types.base import Condition

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)


def ready(
    before: list[Condition], status: str, now: datetime, message: str = "", generation: int = 1
) -> list[Condition]:
    return with_condition(
        before,
        type="Ready",
        status=status,  # type: ignore[arg-type]
        reason="Because",
        message=message,
        generation=generation,
        now=now,
    )


def test_a_first_condition_begins_now() -> None:
    (made,) = ready([], "False", NOON, "no pods")
    assert made.last_transition_time == "2026-11-22T12:00:00Z"
    assert (made.type, made.status, made.reason, made.message) == (
        "Ready",
        "False",
        "Because",
        "no pods",
    )


def test_an_equal_status_keeps_its_time_but_tells_the_newest_words() -> None:
    (made,) = ready(ready([], "False", NOON, "no pods"), "False", LATER, "one pod", generation=2)
    assert made.last_transition_time == "2026-11-22T12:00:00Z"
    assert made.message == "one pod"
    assert made.observed_generation == 2


def test_another_status_has_the_time_of_the_change() -> None:
    (made,) = ready(ready([], "False", NOON), "True", LATER)
    assert made.last_transition_time == "2026-11-22T12:05:00Z"


def test_times_are_told_in_utc() -> None:
    (made,) = ready([], "True", NOON.astimezone(timezone(timedelta(hours=2))))
    assert made.last_transition_time == "2026-11-22T12:00:00Z"


def test_others_stay_as_they_are_and_in_their_order() -> None:
    others = [
        Condition(type=name, status="True", reason="R", last_transition_time="2026-01-01T00:00:00Z")
        for name in ("TransferVerified", "ReuseVerified")
    ]
    before = [others[0], *ready([], "True", NOON), others[1]]
    after = ready(before, "False", LATER)
    assert [one.type for one in after] == ["TransferVerified", "Ready", "ReuseVerified"]
    assert (after[0], after[2]) == (others[0], others[1])


def test_a_message_of_any_length_fits() -> None:
    (made,) = ready([], "False", NOON, "x" * 100_000)
    assert len(made.message) == 4096
    assert made.message.endswith("…")


def test_conditions_go_to_the_api_and_come_back() -> None:
    made = ready([], "True", NOON)
    assert as_status(made) == [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Because",
            "message": "",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-11-22T12:00:00Z",
        }
    ]
    assert conditions_of({"conditions": as_status(made)}) == made
    assert conditions_of({}) == conditions_of(None) == []
    assert condition(made, "Ready") == made[0]
    assert condition(made, "ReuseVerified") is None

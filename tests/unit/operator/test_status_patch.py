"""A status laid over the one that is there."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kvloop.operator.runtime.status import status_patch


def condition(type_: str, status: str = "True") -> dict[str, Any]:
    """One of them."""
    return {"type": type_, "status": status}


def test_an_equal_status_is_no_patch() -> None:
    status = {"endpoint": "e", "conditions": [condition("Ready")], "members": [1]}
    assert status_patch(status, status, status) == {}


def test_a_changed_field_is_the_patch() -> None:
    seen = {"endpoint": "e", "used": "1"}
    assert status_patch(seen, {"endpoint": "f", "used": "1"}, seen) == {"endpoint": "f"}


def test_a_field_that_the_controller_left_out_goes() -> None:
    seen = {"endpoint": "e", "used": "1"}
    assert status_patch(seen, {"endpoint": "e"}, seen) == {"used": None}


def test_a_field_that_another_writer_added_meanwhile_stays() -> None:
    assert status_patch({}, {"endpoint": "e"}, {"theirs": 1}) == {"endpoint": "e"}


def test_a_condition_that_another_writer_added_meanwhile_stays() -> None:
    patch = status_patch(
        {"conditions": [condition("Ready", "False")]},
        {"conditions": [condition("Ready")]},
        {"conditions": [condition("Audited"), condition("Ready", "False")]},
    )
    assert patch == {"conditions": [condition("Ready"), condition("Audited")]}


def test_a_condition_that_the_controller_saw_and_left_out_goes() -> None:
    seen = {"conditions": [condition("Ready"), condition("Old")]}
    patch = status_patch(seen, {"conditions": [condition("Ready")]}, seen)
    assert patch == {"conditions": [condition("Ready")]}


def test_a_key_that_left_a_map_is_taken_away() -> None:
    seen = {"loop": {"result": "broken", "brokenStage": "reuse"}}
    assert status_patch(seen, {"loop": {"result": "whole"}}, seen) == {
        "loop": {"result": "whole", "brokenStage": None}
    }


VALUES = st.recursive(
    st.integers(0, 3) | st.text("ab", min_size=1, max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("pq"), inner),
    max_leaves=5,
)
STATUSES = st.dictionaries(st.sampled_from("xyz"), VALUES)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    made = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merged(made.get(key), value)
    return made


@given(STATUSES, STATUSES)
def test_the_patch_leads_from_what_was_seen_to_what_is_wanted(
    seen: dict[str, Any], wanted: dict[str, Any]
) -> None:
    assert merged(seen, status_patch(seen, wanted, seen)) == wanted


def test_empty_texts_are_left_out_whatever_they_are_in() -> None:
    wanted = {"endpoint": "", "members": [{"name": "a", "node": ""}]}
    assert status_patch({}, wanted, {}) == {"members": [{"name": "a"}]}

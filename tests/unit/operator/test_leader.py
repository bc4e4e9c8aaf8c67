"""Who leads, by a Lease."""

from __future__ import annotations

from typing import Any

import pytest

from kvloop.operator.runtime.leader import DURATION_S, RENEW_S, Seen, is_free, taken


def lease(holder: str | None = "other", version: str = "1", duration: int = 10) -> dict[str, Any]:
    """As the API server keeps it."""
    spec = {"holderIdentity": holder, "leaseDurationSeconds": duration, "leaseTransitions": 3}
    return {"metadata": {"name": "l", "resourceVersion": version}, "spec": spec}


@pytest.mark.parametrize("holder", [None, "", "me"])
def test_a_lease_of_nobody_or_of_ours_is_free(holder: str | None) -> None:
    assert is_free(lease(holder), None, "me", now=0.0)


def test_a_lease_without_a_spec_is_free() -> None:
    assert is_free({"metadata": {"resourceVersion": "1"}}, None, "me", now=0.0)


def test_a_lease_that_is_seen_for_the_first_time_is_not_free_whatever_its_clock_says() -> None:
    assert not is_free(lease(), None, "me", now=1e9)


def test_a_lease_that_was_renewed_since_is_not_free() -> None:
    assert not is_free(lease(version="2"), Seen(version="1", at=0.0), "me", now=1e9)


def test_a_lease_is_free_once_nobody_renewed_it_for_its_duration() -> None:
    seen = Seen(version="1", at=100.0)
    assert not is_free(lease(), seen, "me", now=109.9)
    assert is_free(lease(), seen, "me", now=110.0)


def test_taking_a_lease_counts_a_transition_and_keeps_the_version_that_guards_it() -> None:
    made = taken(lease(), "me", "now")
    assert made["metadata"]["resourceVersion"] == "1"
    assert made["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 4,
        "acquireTime": "now",
        "renewTime": "now",
    }


def test_renewing_a_lease_is_no_transition() -> None:
    spec = taken(taken(lease(), "me", "first"), "me", "second")["spec"]
    assert (spec["leaseTransitions"], spec["acquireTime"]) == (4, "first")
    assert spec["renewTime"] == "second"


def test_a_leader_stops_before_another_may_lead() -> None:
    assert RENEW_S < DURATION_S

"""Who leads, by a Kubernetes Lease: pure. Clocks of other machines are never compared with ours.

A candidate takes the Lease when nobody holds it, or when it has not changed for its whole duration
as seen here. A leader stops itself when two thirds of that have passed since it began its last
renewal that succeeded: before anybody else can have seen the Lease unchanged for all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Manifest = Mapping[str, Any]
_STOP_SHARE = 2 / 3
_TRIES = 5
"""In the time after which a leader stops itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds."""

    lease_s: float

    @property
    def stop_s(self) -> float:
        """A leader stops itself so long after its last renewal."""
        return self.lease_s * _STOP_SHARE

    @property
    def period_s(self) -> float:
        """Between two looks."""
        return self.stop_s / _TRIES

    @property
    def call_s(self) -> float:
        """Deadline of one call of the API."""
        return self.stop_s / 3


class Candidate:
    """What one process knows of the Lease."""

    def __init__(self, identity: str, timing: Timing) -> None:
        self.identity = identity
        self.timing = timing
        self._stamp: object = None
        self._unchanged_since = 0.0
        self._not_before = 0.0

    def see(self, lease: Manifest, now: float) -> None:
        """`now` is of a monotonic clock, taken after the Lease was read."""
        stamp = _stamp(lease)
        if stamp != self._stamp:
            self._stamp, self._unchanged_since = stamp, now

    def may_take(self, lease: Manifest, now: float) -> bool:
        """Of a Lease that was seen. Our own of an earlier process of this pod is ours again."""
        holder = holder_of(lease)
        if now < self._not_before:
            return False
        if not holder or holder == self.identity:
            return True
        return now - self._unchanged_since >= self.timing.lease_s

    def stand_back(self, now: float) -> None:
        """Others go first."""
        self._not_before = now + 2 * self.timing.period_s


def holder_of(lease: Manifest) -> str:
    """Its identity; empty: nobody."""
    holder = (lease.get("spec") or {}).get("holderIdentity")
    return holder or ""


def pod_of(identity: str) -> str:
    """Identities are POD or POD_UID."""
    return identity.partition("_")[0]


def held(lease: Manifest, identity: str, lease_s: float, now: datetime) -> dict[str, Any]:
    """The Lease, taken or renewed; `now` is for people, and makes each renewal another."""
    spec = dict(lease.get("spec") or {})
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if holder_of(lease) != identity:
        spec["acquireTime"] = stamp
        spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
    spec["holderIdentity"] = identity
    spec["leaseDurationSeconds"] = max(1, round(lease_s))
    spec["renewTime"] = stamp
    return {**lease, "spec": spec}


def released(lease: Manifest) -> dict[str, Any]:
    """Nobody's: the next one need not wait."""
    return {**lease, "spec": {**(lease.get("spec") or {}), "holderIdentity": ""}}


def _stamp(lease: Manifest) -> object:
    """Changes with every renewal, and with nothing that others do to the object."""
    spec = lease.get("spec") or {}
    return tuple(spec.get(name) for name in ("holderIdentity", "renewTime", "leaseTransitions"))

"""One of several masters runs while it holds the Lease, and only then."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from kvloop.cli.store.lease import Candidate, held, holder_of, pod_of, released
from kvloop.cli.store.lease_api import LeaseApi, LeaseError
from kvloop.shared_cache.storage_errors import StorageUnavailable

Report = Callable[[str], None]
_GONE = (403, 404)
"""Of a label: the pod is not there, or none of this store's any more."""


class Master(Protocol):
    """What runs while it leads."""

    address: str

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""

    def start(self, deadline_s: float = ...) -> None:
        """StorageUnavailable where it does not come up."""

    def kill(self) -> None:
        """At once."""

    def stop(self, deadline_s: float = ...) -> None:
        """In order."""


class Leadership:
    """`tick` from one thread, at each period; a thread of its own kills a master out of time."""

    def __init__(
        self,
        api: LeaseApi,
        candidate: Candidate,
        master: Master,
        report: Report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._candidate = candidate
        self._master = master
        self._report = report
        self._clock = clock
        self._lease: dict[str, Any] | None = None
        """The one we hold, as last written; None: we do not lead."""
        self._renewed_at = 0.0
        self._read_at: float | None = None
        self._said = ""
        self._was_too_late = False
        self._marked_at = 0.0
        # A container of this pod may have led before this process, and died with the label on.
        self._marks = {pod_of(candidate.identity): False}

    @property
    def leads(self) -> bool:
        """Whether our master runs, or is to be ended."""
        return self._lease is not None

    @property
    def is_ready(self) -> bool:
        """A leader whose master runs; another that knows who leads."""
        if self._lease is not None:
            return self._master.exit_code is None and not self._is_out_of_time()
        seen = self._read_at
        return seen is not None and self._clock() - seen < self._candidate.timing.lease_s

    def tick(self) -> None:
        """Look at the Lease, and do what follows from it. Never raises for what the API says."""
        try:
            if self._lease is None:
                self._follow()
            else:
                self._keep()
            self._mark()
        except LeaseError as error:
            self._say(f"the cluster's API: {error}")

    def guard(self) -> None:
        """Called often, by another thread: no master outlives its time, whatever hangs."""
        if self.leads and self._is_out_of_time():
            self._was_too_late = True
            self._master.kill()

    def resign(self) -> None:
        """End the master; the next leader need not wait where it can be told."""
        if self._lease is None:
            return
        try:
            self._api.mark(pod_of(self._candidate.identity), leads=False)
            self._master.stop()
            self._release()
        except LeaseError as error:
            self._say(f"the cluster's API: {error}; another leads once the Lease is over")
        finally:
            self._master.stop()
            self._lease = None

    # --- following ----------------------------------------------------------------------------

    def _follow(self) -> None:
        lease = self._api.read()
        now = self._read_at = self._clock()
        self._candidate.see(lease, now)
        if not self._candidate.may_take(lease, now):
            self._say(f"standing by: {holder_of(lease) or 'nobody'} leads")
            return
        try:
            self._take(lease)
        except LeaseError as error:
            if error.status != 409:
                raise
            self._say("standing by: another was faster")

    def _take(self, lease: dict[str, Any]) -> None:
        before, previous = self._clock(), pod_of(holder_of(lease))
        taken = self._api.write(self._ours(lease))
        self._was_too_late = False
        self._renewed_at, self._lease = before, taken
        try:
            self._master.start(self._candidate.timing.stop_s / 2)
        except StorageUnavailable as error:
            self._step_down(str(error))
            return
        if previous:
            self._marks[previous] = False
        self._marks[pod_of(self._candidate.identity)] = True
        self._say(f"leading: master at {self._master.address}")

    # --- leading ------------------------------------------------------------------------------

    def _keep(self) -> None:
        assert self._lease is not None
        if self._is_out_of_time():
            self._lose("the Lease could not be renewed in time")
        elif self._was_too_late:
            self._step_down("the Lease was renewed too late")
        elif self._master.exit_code is not None:
            self._step_down(f"the master died (exit code {self._master.exit_code})")
        else:
            self._renew(self._lease)

    def _renew(self, lease: dict[str, Any]) -> None:
        before = self._clock()
        try:
            self._lease = self._api.write(self._ours(lease))
        except LeaseError as error:
            if error.status != 409:
                raise
            # Somebody has written it: its labels, or itself as the holder.
            found = self._api.read()
            if holder_of(found) != self._candidate.identity:
                self._lose(f"{holder_of(found) or 'nobody'} holds the Lease")
                return
            self._lease = found
            self._lease = self._api.write(self._ours(found))
        self._renewed_at = before
        if before - self._marked_at >= self._candidate.timing.lease_s:
            # Somebody may have taken the label off.
            self._marks[pod_of(self._candidate.identity)] = True
        self._say(f"leading: master at {self._master.address}")

    def _lose(self, why: str) -> None:
        self._master.kill()
        self._lease = None
        self._marks[pod_of(self._candidate.identity)] = False
        self._candidate.stand_back(self._clock())
        self._say(f"not leading any more: {why}; the master was ended, its keys are lost")

    def _step_down(self, why: str) -> None:
        """Our master is of no use: another's is there faster than a new one of ours."""
        self._lose(why)
        self._mark()
        self._release()

    # --- both ---------------------------------------------------------------------------------

    def _mark(self) -> None:
        """What was not said to the API yet; the removals first, so that never two are marked."""
        for pod, leads in sorted(self._marks.items(), key=lambda mark: mark[1]):
            try:
                self._api.mark(pod, leads=leads)
            except LeaseError as error:
                if leads or error.status not in _GONE:
                    raise
                self._say(f"the label of {pod}: {error}")
            if leads:
                self._marked_at = self._clock()
            del self._marks[pod]

    def _release(self) -> None:
        """Only with the label off: a Service must not find a dead leader beside the next."""
        lease = self._api.read()
        if holder_of(lease) == self._candidate.identity:
            self._api.write(released(lease))

    def _is_out_of_time(self) -> bool:
        return self._clock() - self._renewed_at >= self._candidate.timing.stop_s

    def _ours(self, lease: dict[str, Any]) -> dict[str, Any]:
        timing = self._candidate.timing
        return held(lease, self._candidate.identity, timing.lease_s, datetime.now(UTC))

    def _say(self, line: str) -> None:
        """Changes only."""
        if line != self._said:
            self._said = line
            self._report(line)

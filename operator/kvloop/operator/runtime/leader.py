"""Leader election by a Lease, so that one process reconciles at a time.

Clocks of machines differ: a Lease has expired when nobody renewed it for its duration by our own
clock. A leader that could not renew for `RENEW_S`, which is shorter, writes nothing any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kvloop.operator.api import KubernetesApi
from kvloop.operator.controllers.base import Manifest, ObjectId
from kvloop.operator.errors import ApiError, OperatorError
from kvloop.operator.rbac import LEASE

log = logging.getLogger(__name__)
DURATION_S = 15.0
RENEW_S = 10.0
RETRY_S = 2.0
RELEASE_S = 5.0


class LeadershipLost(OperatorError):
    """Another may lead now: nothing may be written any more."""

    def __init__(self, message: str, *, is_taken: bool) -> None:
        super().__init__(message)
        self.is_taken = is_taken
        """Another leads; else the API server did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a standby knows of the leader."""

    version: str
    """Of the Lease: it changes with each renewal."""
    at: float
    """When we saw that first."""


def is_free(lease: Manifest, seen: Seen | None, me: str, now: float) -> bool:
    """Nobody's, ours, or not renewed for its duration as far as we saw."""
    spec = lease.get("spec") or {}
    if spec.get("holderIdentity") in (None, "", me):
        return True
    if seen is None or seen.version != lease["metadata"]["resourceVersion"]:
        return False
    return now - seen.at >= float(spec.get("leaseDurationSeconds") or DURATION_S)


def taken(lease: Manifest, me: str, stamp: str) -> Manifest:
    """Held by `me`."""
    spec = dict(lease.get("spec") or {})
    if spec.get("holderIdentity") != me:
        spec["acquireTime"] = stamp
        spec["leaseTransitions"] = (spec.get("leaseTransitions") or 0) + 1
    spec |= {
        "holderIdentity": me,
        "leaseDurationSeconds": int(DURATION_S),
        "renewTime": stamp,
    }
    return {**lease, "spec": spec}


class Leader:
    """One candidate."""

    def __init__(
        self,
        api: KubernetesApi,
        *,
        namespace: str,
        identity: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._id = ObjectId(
            api_version="coordination.k8s.io/v1", kind="Lease", namespace=namespace, name=LEASE
        )
        self._me = identity
        self._clock = clock
        self._lease: Manifest | None = None
        self._seen: Seen | None = None
        self._renewed = float("-inf")

    async def acquire(self) -> None:
        """Wait until we lead; the API server may come and go meanwhile."""
        told = ""
        while True:
            try:
                holder = await self._try()
            except ApiError as error:
                holder = f"nobody known: {error}"
            if holder is None:
                log.info("leading as %s", self._me)
                return
            if holder != told:
                log.info("standing by: the leader is %s", holder)
                told = holder
            await asyncio.sleep(RETRY_S)

    async def keep(self) -> None:
        """Renew until cancelled. LeadershipLost where that did not go well for long."""
        while True:
            await asyncio.sleep(RETRY_S)
            left_s = self._renewed + RENEW_S - self._clock()
            try:
                async with asyncio.timeout(max(left_s, 0.0)):
                    holder = await self._try()
            except (ApiError, TimeoutError) as error:
                log.warning("the lease was not renewed: %s", error or "no answer")
                if self._clock() - self._renewed >= RENEW_S:
                    self._lease = None
                    why = f"the lease was not renewed for {RENEW_S:g} s"
                    raise LeadershipLost(why, is_taken=False) from error
            else:
                if holder is not None:
                    self._lease = None
                    raise LeadershipLost(f"the leader is {holder}", is_taken=True)

    async def release(self) -> None:
        """Let another lead at once; no error where that does not go."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._api.replace({**lease, "spec": spec})
        except (ApiError, TimeoutError) as error:
            log.warning("the lease was not released: %s", error or "no answer")

    async def _try(self) -> str | None:
        """Who leads; None: we do."""
        begun = self._clock()
        lease = await self._api.get(self._id)
        if lease is None:
            held = await self._api.create(taken(self._empty(), self._me, _stamp()))
            return self._won(held, begun)
        if not is_free(lease, self._seen, self._me, begun):
            self._see(lease, begun)
            return str(lease["spec"]["holderIdentity"])
        try:
            held = await self._api.replace(taken(lease, self._me, _stamp()))
        except ApiError as error:
            if error.status != 409:
                raise
            held = None
        return self._won(held, begun)

    def _won(self, held: Manifest | None, begun: float) -> str | None:
        if held is None:
            return "another, who was faster"
        self._lease, self._renewed = held, begun
        return None

    def _see(self, lease: Manifest, now: float) -> None:
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen.version != version:
            self._seen = Seen(version=version, at=now)

    def _empty(self) -> Manifest:
        metadata: dict[str, Any] = {"name": self._id.name, "namespace": self._id.namespace}
        return {"apiVersion": self._id.api_version, "kind": "Lease", "metadata": metadata}


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

"""Masters elect one of them by a Lease: never two in time, and a Service finds one alone."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvloop.cli.store.elected import LeaseFlags
from kvloop.cli.store.health import health_server
from kvloop.cli.store.leadership import Leadership
from kvloop.cli.store.lease import Candidate, Timing, held, holder_of, pod_of, released
from kvloop.cli.store.lease_api import LeaseError
from kvloop.shared_cache.backends.mooncake.store_config import StoreConfig
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.storage_errors import StorageUnavailable

TIMING = Timing(lease_s=15.0)
NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


@dataclass
class Clock:
    """Of all processes of a test."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Cluster:
    """The Lease and the labels, in memory."""

    lease: dict[str, Any] = field(default_factory=lambda: {"metadata": {"resourceVersion": "1"}})
    leaders: set[str] = field(default_factory=set)
    is_down: bool = False
    pods: frozenset[str] = frozenset({"m-0", "m-1"})

    def read(self) -> dict[str, Any]:
        self._answer()
        return deepcopy(self.lease)

    def write(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        self._answer()
        version = self.lease["metadata"]["resourceVersion"]
        if lease["metadata"]["resourceVersion"] != version:
            raise LeaseError("changed", 409)
        self.lease = deepcopy(dict(lease))
        self.lease["metadata"]["resourceVersion"] = str(int(version) + 1)
        return deepcopy(self.lease)

    def mark(self, pod: str, *, leads: bool) -> None:
        self._answer()
        if pod not in self.pods:
            raise LeaseError("no such pod", 404)
        (self.leaders.add if leads else self.leaders.discard)(pod)

    def touch(self) -> None:
        """As the operator does when it labels the Lease."""
        version = int(self.lease["metadata"]["resourceVersion"])
        self.lease["metadata"] = {"resourceVersion": str(version + 1), "labels": {"a": "b"}}

    def _answer(self) -> None:
        if self.is_down:
            raise LeaseError("no answer")


@dataclass
class Master:
    """A process that runs or not."""

    address: str = "10.0.0.1:50051"
    runs: bool = False
    is_broken: bool = False

    @property
    def exit_code(self) -> int | None:
        return None if self.runs else -9

    def start(self, deadline_s: float = 10.0) -> None:
        if self.is_broken:
            raise StorageUnavailable("it did not come up")
        self.runs = True

    def kill(self) -> None:
        self.runs = False

    def stop(self, deadline_s: float = 3.0) -> None:
        self.runs = False


@dataclass
class Process:
    """One of several masters' pods."""

    cluster: Cluster
    clock: Clock
    name: str
    uid: str = "u"
    master: Master = field(default_factory=Master)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        candidate = Candidate(f"{self.name}_{self.uid}", TIMING)
        self.leadership = Leadership(
            self.cluster, candidate, self.master, self.said.append, self.clock
        )

    def tick(self) -> None:
        self.leadership.tick()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def first(cluster: Cluster, clock: Clock) -> Process:
    return Process(cluster, clock, "m-0")


@pytest.fixture
def second(cluster: Cluster, clock: Clock) -> Process:
    return Process(cluster, clock, "m-1")


def test_one_takes_a_free_lease_and_is_labelled_once_its_master_runs(
    cluster: Cluster, first: Process, second: Process
) -> None:
    first.tick()
    second.tick()

    assert (first.master.runs, second.master.runs) == (True, False)
    assert cluster.leaders == {"m-0"}
    assert first.said == ["leading: master at 10.0.0.1:50051"]
    assert second.said == ["standing by: m-0_u leads"]


def test_a_leader_that_renews_stays(
    cluster: Cluster, clock: Clock, first: Process, second: Process
) -> None:
    for _ in range(20):
        first.tick()
        second.tick()
        clock.now += TIMING.period_s

    assert (first.master.runs, second.master.runs) == (True, False)


def test_another_leads_after_the_lease_and_not_before(
    cluster: Cluster, clock: Clock, first: Process, second: Process
) -> None:
    first.tick()
    second.tick()
    clock.now += TIMING.lease_s - 0.1
    second.tick()
    assert not second.master.runs

    clock.now += 0.2
    second.tick()
    assert second.master.runs
    assert cluster.leaders == {"m-1"}


def test_a_leader_without_the_api_ends_its_master_before_anybody_takes_the_lease(
    cluster: Cluster, clock: Clock, first: Process
) -> None:
    first.tick()
    cluster.is_down = True
    clock.now += TIMING.stop_s - 0.1
    first.tick()
    first.leadership.guard()
    assert first.master.runs

    clock.now += 0.2
    first.leadership.guard()
    assert not first.master.runs
    assert TIMING.stop_s + 2 * TIMING.period_s <= TIMING.lease_s


def test_a_leader_that_was_too_late_takes_its_label_off_once_it_can(
    cluster: Cluster, clock: Clock, first: Process
) -> None:
    first.tick()
    cluster.is_down = True
    clock.now += TIMING.stop_s
    first.tick()
    assert cluster.leaders == {"m-0"}

    cluster.is_down = False
    first.tick()
    assert cluster.leaders == set()


def test_a_leader_whose_lease_was_taken_ends_its_master_at_once(
    cluster: Cluster, first: Process
) -> None:
    first.tick()
    cluster.lease = held(cluster.read(), "m-1_u", 15, NOW)
    cluster.touch()
    first.tick()

    assert not first.master.runs
    assert "m-0" not in cluster.leaders
    assert "m-1_u holds the Lease" in first.said[-1]


def test_others_that_label_the_lease_do_not_end_a_leader(cluster: Cluster, first: Process) -> None:
    first.tick()
    cluster.touch()
    first.tick()

    assert first.master.runs
    assert cluster.lease["metadata"]["labels"] == {"a": "b"}


def test_a_dead_master_hands_over_without_waiting(
    cluster: Cluster, first: Process, second: Process
) -> None:
    first.tick()
    first.master.runs = False
    first.tick()
    assert cluster.leaders == set()

    first.tick()  # it stands back
    second.tick()
    assert (first.master.runs, second.master.runs) == (False, True)


def test_a_master_that_does_not_come_up_hands_over(
    cluster: Cluster, first: Process, second: Process
) -> None:
    first.master.is_broken = True
    first.tick()
    assert holder_of(cluster.lease) == ""
    assert cluster.leaders == set()

    second.tick()
    assert cluster.leaders == {"m-1"}


def test_a_single_master_tries_again(cluster: Cluster, clock: Clock, first: Process) -> None:
    first.tick()
    first.master.runs = False
    first.tick()
    clock.now += 2 * TIMING.period_s
    first.tick()

    assert first.master.runs
    assert cluster.leaders == {"m-0"}


def test_who_resigns_hands_over_without_waiting(
    cluster: Cluster, first: Process, second: Process
) -> None:
    first.tick()
    first.leadership.resign()
    assert not first.master.runs
    assert (holder_of(cluster.lease), cluster.leaders) == ("", set())

    second.tick()
    assert second.master.runs


def test_who_cannot_say_that_it_resigns_keeps_the_lease_until_its_end(
    cluster: Cluster, first: Process
) -> None:
    first.tick()
    cluster.is_down = True
    first.leadership.resign()

    assert not first.master.runs
    assert holder_of(cluster.lease) == "m-0_u"


def test_a_container_that_starts_again_takes_the_old_label_off_and_leads_at_once(
    cluster: Cluster, clock: Clock, first: Process
) -> None:
    first.tick()
    again = Process(cluster, clock, "m-0")
    again.tick()

    assert again.master.runs
    assert cluster.leaders == {"m-0"}


def test_a_new_pod_of_the_same_name_waits_as_any_other(
    cluster: Cluster, clock: Clock, first: Process
) -> None:
    first.tick()
    other = Process(cluster, clock, "m-0", uid="another")
    other.tick()

    assert not other.master.runs
    assert "m-0" not in cluster.leaders  # its own, left by a pod that is gone


def test_a_label_of_a_pod_that_is_gone_is_no_hindrance(
    cluster: Cluster, clock: Clock, second: Process
) -> None:
    gone = Process(cluster, clock, "m-7")
    gone.tick()
    second.tick()
    clock.now += TIMING.lease_s
    second.tick()

    assert cluster.leaders == {"m-1"}


def test_a_label_that_somebody_took_off_comes_back(
    cluster: Cluster, clock: Clock, first: Process
) -> None:
    first.tick()
    cluster.leaders.clear()
    _lead(first, clock, TIMING.lease_s)

    assert cluster.leaders == {"m-0"}


def test_a_leader_that_may_not_label_itself_yet_tries_again(
    cluster: Cluster, clock: Clock, first: Process
) -> None:
    pods, cluster.pods = cluster.pods, frozenset()
    first.tick()
    assert first.master.runs and not cluster.leaders
    cluster.pods = pods
    _lead(first, clock, TIMING.period_s)

    assert cluster.leaders == {"m-0"}


def _lead(process: Process, clock: Clock, seconds: float) -> None:
    """In as many ticks as it takes."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += TIMING.period_s
        process.tick()


def test_readiness_of_a_stand_by_is_that_it_sees_the_lease(
    cluster: Cluster, clock: Clock, first: Process, second: Process
) -> None:
    assert not second.leadership.is_ready
    first.tick()
    second.tick()
    assert first.leadership.is_ready and second.leadership.is_ready

    cluster.is_down = True
    clock.now += TIMING.lease_s
    second.tick()
    assert not second.leadership.is_ready


def test_a_leader_whose_master_died_is_not_ready(first: Process) -> None:
    first.tick()
    first.master.runs = False

    assert not first.leadership.is_ready


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["m-0", "m-1", "m-2"]),
            st.sampled_from(["tick", "tick", "tick", "kill", "cut", "mend", "touch"]),
            st.floats(0.0, 4.0),
        ),
        max_size=80,
    )
)
def test_never_do_two_masters_run_whatever_happens(steps: list[tuple[str, str, float]]) -> None:
    clock, cluster = Clock(), Cluster(pods=frozenset({"m-0", "m-1", "m-2"}))
    cut: set[str] = set()
    shared = _Shared(cluster, cut)
    everyone = {name: Process(shared.seen_by(name), clock, name) for name in cluster.pods}
    for name, what, seconds in steps:
        clock.now += seconds
        for each in everyone.values():
            each.leadership.guard()
        match what:
            case "tick":
                everyone[name].tick()
            case "kill":
                everyone[name].master.runs = False
            case "cut":
                cut.add(name)
            case "mend":
                cut.discard(name)
            case _:
                cluster.touch()
        assert sum(each.master.runs for each in everyone.values()) <= 1


class _Shared:
    """One cluster, which some of its pods do not reach."""

    def __init__(self, cluster: Cluster, cut: set[str]) -> None:
        self._cluster, self._cut = cluster, cut

    def seen_by(self, name: str) -> Any:
        outer = self

        class View:
            def __getattr__(self, what: str) -> Any:
                if name in outer._cut:
                    raise LeaseError("no answer")
                return getattr(outer._cluster, what)

        return View()


def test_a_lease_counts_who_held_it_and_keeps_since_when() -> None:
    taken = held({"metadata": {}}, "a_1", 15, NOW)
    renewed = held(taken, "a_1", 15, NOW.replace(second=9))
    over = held(released(renewed), "b_1", 15, NOW.replace(second=20))

    assert taken["spec"]["acquireTime"] == "2026-01-02T03:04:05.000006Z"
    assert renewed["spec"]["acquireTime"] == taken["spec"]["acquireTime"]
    assert renewed["spec"]["renewTime"] != taken["spec"]["renewTime"]
    assert [one["spec"]["leaseTransitions"] for one in (taken, renewed, over)] == [1, 1, 2]
    assert pod_of(holder_of(over)) == "b"


@pytest.mark.parametrize(
    ("flags", "store", "words"),
    [
        ({"lease": "name"}, {}, "NAMESPACE/NAME"),
        ({"identity": ""}, {}, "--identity"),
        ({"lease_s": 1.0}, {}, "--lease-s"),
        ({}, {"segment_bytes": 1 << 30}, "--segment-size 0"),
        ({}, {"ha": "etcd://e:1"}, "--ha"),
        ({}, {"master": "m:1", "segment_bytes": 1 << 30}, "--segment-size 0"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    flags: dict[str, Any], store: dict[str, Any], words: str
) -> None:
    given_flags = LeaseFlags(**{"lease": "ns/m", "identity": "m-0", **flags})

    with pytest.raises(ConfigError, match=words):
        given_flags.check(StoreConfig(**{"segment_bytes": 0, **store}))


def test_a_port_that_is_taken_is_named() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"--health-port {port}"),
            health_server(port, is_ready=lambda: True),
        ):
            pass

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_deployments import SimulatedCluster, SimulatedDeployment

from kvloop.operator.rollout import GatedPod, Wanted, plan_gates

REPLICAS = st.integers(1, 4)
ROLLOUTS = st.sampled_from([(1, 0), (2, 0), (1, 1), (0, 1), (2, 2), (0, 2)])


def pod(name: str, generation: str = "new", **more: Any) -> GatedPod:
    role = "prefill" if name.startswith("p") else "decode"
    fields: dict[str, Any] = {"runs": True, "is_open": False, **more}
    return GatedPod(name=name, role=role, generation=generation, **fields)  # type: ignore[arg-type]


def opened(pods: Iterable[GatedPod], prefill: int = 1, decode: int = 1, down: int = 0) -> set[str]:
    replicas = {"prefill": prefill, "decode": decode}
    wanted = Wanted(generation="new", replicas=replicas, max_unavailable=down)  # type: ignore[arg-type]
    return set(plan_gates(list(pods), wanted))


def test_without_another_generation_all_gates_open_at_once() -> None:
    assert opened([pod("p1", runs=False), pod("d1"), pod("d2")], decode=2) == {"p1", "d1", "d2"}


def test_a_new_pod_waits_for_a_peer_of_its_generation() -> None:
    old = [pod("p0", "old", is_open=True), pod("d0", "old", is_open=True)]
    assert opened([*old, pod("p1")]) == set()
    assert opened([*old, pod("p1"), pod("d1", runs=False)]) == set()
    assert opened([*old, pod("p1"), pod("d1")]) == {"p1", "d1"}


def test_the_last_new_pod_waits_until_the_other_roles_all_run() -> None:
    old = [pod("p0", "old", is_open=True), pod("d0", "old", is_open=True)]
    new = [pod("p1"), pod("d1", is_open=True)]
    assert opened([*old, *new], decode=2) == set()
    assert opened([*old, *new, pod("d2")], decode=2) == {"p1", "d2"}


def test_earlier_new_pods_need_not_wait_for_all() -> None:
    old = [pod("p0", "old", is_open=True), pod("d0", "old", is_open=True)]
    assert opened([*old, pod("p1"), pod("d1")], prefill=3, decode=3) == {"p1", "d1"}


def test_a_pod_that_is_not_running_is_not_opened_in_a_rollout() -> None:
    old = pod("d0", "old", is_open=True)
    assert opened([old, pod("p1", runs=False), pod("d1")]) == set()


def test_an_old_pod_that_came_anew_serves_with_its_old_peer() -> None:
    pods = [pod("p0", "old"), pod("d0", "old", is_open=True), pod("p1")]
    assert opened(pods) == {"p0"}
    assert opened([pod("p0", "old"), pod("p1"), pod("d1", runs=False)]) == set()


def test_a_role_without_replicas_is_waited_for_by_nobody() -> None:
    assert opened([pod("p0", "old", is_open=True), pod("p1")], decode=0) == {"p1"}


def test_where_machines_have_no_room_the_other_role_need_not_be_complete() -> None:
    pods = [pod("p0", "old", is_open=True), pod("d0", "old", is_open=True), pod("p1"), pod("d1")]
    assert opened(pods, prefill=2, decode=2, down=1) == {"p1", "d1"}


def _settled(replicas: tuple[int, int], surge: int, down: int) -> SimulatedCluster:
    roles = [
        SimulatedDeployment(role, count, surge, down, "g0")
        for role, count in zip(("prefill", "decode"), replicas, strict=True)
    ]
    cluster = SimulatedCluster(*roles)
    for one in cluster.roles:
        one.step()
        for made in one.pods:
            made.runs = made.is_open = True
    assert cluster.is_done
    return cluster


def _turn(cluster: SimulatedCluster, random: Random, generation: str) -> None:
    action = random.choice(["prefill", "decode", "start", "gates", "template"])
    if action == "start":
        cluster.start_one(random)
    elif action == "gates":
        cluster.open_gates(generation)
    elif action == "template":
        cluster.roll(random.choice(cluster.roles), generation)
    else:
        (cluster.prefill if action == "prefill" else cluster.decode).step()


def _finish(cluster: SimulatedCluster, random: Random, generation: str) -> None:
    for one in cluster.roles:
        cluster.roll(one, generation)
    for _ in range(600):
        _turn(cluster, random, generation)
        if cluster.is_done:
            return
    raise AssertionError(f"it does not end: {cluster}")


@settings(max_examples=300, deadline=None)
@given(st.tuples(REPLICAS, REPLICAS), ROLLOUTS, st.integers(0, 2**32))
def test_enough_pods_have_a_peer_of_their_generation_at_every_moment_of_a_rollout(
    replicas: tuple[int, int], rollout: tuple[int, int], seed: int
) -> None:
    cluster, random = _settled(replicas, *rollout), Random(seed)
    keeps = min(replicas) > rollout[1]  # else it was allowed that no old pod stays
    for _ in range(600):
        _turn(cluster, random, "g1")
        assert cluster.serves or not keeps, cluster
    _finish(cluster, random, "g1")


@settings(max_examples=300, deadline=None)
@given(st.tuples(REPLICAS, REPLICAS), ROLLOUTS, st.integers(0, 2**32))
def test_a_rollout_ends_also_where_pods_die_and_templates_change_again(
    replicas: tuple[int, int], rollout: tuple[int, int], seed: int
) -> None:
    cluster, random = _settled(replicas, *rollout), Random(seed)
    for turn in range(100):
        _turn(cluster, random, f"g{1 + turn // 40}")
        if random.random() < 0.1:
            cluster.kill_one(random)
    _finish(cluster, random, "g9")


@settings(max_examples=100, deadline=None)
@given(st.tuples(REPLICAS, REPLICAS), st.integers(0, 2**32))
def test_scaling_in_the_middle_of_a_rollout_ends_too(replicas: tuple[int, int], seed: int) -> None:
    cluster, random = _settled(replicas, 1, 0), Random(seed)
    for _ in range(60):
        _turn(cluster, random, "g1")
        if random.random() < 0.1:
            random.choice(cluster.roles).replicas = random.randint(1, 4)
    _finish(cluster, random, "g1")

"""How many nodes a role is given: bounds, up at once, down after quiet, never to and fro."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvloop.operator.autoscale.load import Loads, RoleLoad
from kvloop.operator.autoscale.plan import Plan, plan_scale
from kvloop.operator.types.cluster_status import AutoscalingStatus
from kvloop.operator.types.pd_cluster import Autoscaling

NOW = 1e9
QUIET = 100


def scaling(**fields: Any) -> Autoscaling:
    given = {
        "prefill": {"minReplicas": 1, "maxReplicas": 8},
        "decode": {"minReplicas": 1, "maxReplicas": 8},
        "objectives": {"queueSeconds": 1.0, "tpotMilliseconds": 50},
        "scaleDownSeconds": QUIET,
        **fields,
    }
    return Autoscaling.model_validate({k: v for k, v in given.items() if v is not None})


def plan(
    loads: Loads,
    autoscaling: Autoscaling | None = None,
    *,
    prefill: int = 2,
    decode: int = 2,
    memory: AutoscalingStatus | None = None,
    now: float = NOW,
) -> Plan:
    current: Any = {"prefill": prefill, "decode": decode}
    return plan_scale(loads, autoscaling or scaling(), current, memory or AutoscalingStatus(), now)


def prefills(ready: int = 2, **load: Any) -> Loads:
    return Loads(roles={"prefill": RoleLoad(ready=ready, **load)})


def decodes(ready: int = 2, itl_s: float | None = None, **load: Any) -> Loads:
    return Loads(roles={"decode": RoleLoad(ready=ready, **load)}, itl_s=itl_s)


CALM = Loads(
    roles={
        "prefill": RoleLoad(ready=2, begun=10, wait_s=0.5, busy_share=0.7),
        "decode": RoleLoad(ready=2, begun=10, running=8, pool_share=0.7),
    },
    itl_s=0.04,
)
IDLE = Loads(roles={"prefill": RoleLoad(ready=2), "decode": RoleLoad(ready=2)})


def test_a_load_that_meets_the_objectives_changes_nothing() -> None:
    found = plan(CALM)
    assert found.replicas == {"prefill": 2, "decode": 2} and found.changes == ()
    assert found.status.prefill.wanted == 2


def test_prompts_that_wait_longer_than_the_objective_add_prefill_nodes_at_once() -> None:
    found = plan(prefills(begun=30, wait_s=1.4))
    assert found.replicas == {"prefill": 3, "decode": 2}
    assert found.changes == ("prefill 2 -> 3: prompts wait 1.40 s of 1 s",)


def test_prompts_that_have_not_begun_count_by_the_rate_of_those_that_have() -> None:
    load = {"begun": 30, "wait_s": 0.1, "window_s": 30.0}
    assert plan(prefills(waiting=3, **load)).replicas["prefill"] == 2
    assert plan(prefills(waiting=4, **load)).replicas["prefill"] == 4


def test_one_that_each_node_is_about_to_take_is_no_queue() -> None:
    """A lone prompt that a look happens to meet, such as a canary's."""
    assert plan(prefills(waiting=2, busy_share=0.7)).replicas["prefill"] == 2
    assert plan(prefills(waiting=5, busy_share=0.7)).replicas["prefill"] == 4


@pytest.mark.parametrize(("begun", "wanted"), [(2, 2), (3, 4)])
def test_the_wait_of_one_or_two_requests_tells_nothing(begun: int, wanted: int) -> None:
    load = prefills(begun=begun, wait_s=18.0, busy_share=0.7)
    assert plan(load).replicas["prefill"] == wanted


def test_nodes_at_most_double_in_one_step() -> None:
    assert plan(prefills(begun=30, wait_s=100.0)).replicas["prefill"] == 4
    assert plan(prefills(ready=1, begun=30, wait_s=100.0), prefill=1).replicas["prefill"] == 2


def test_while_nodes_start_no_more_and_more_are_asked_for() -> None:
    assert plan(prefills(ready=2, begun=30, wait_s=100.0), prefill=4).replicas["prefill"] == 4


@pytest.mark.parametrize(("wait_s", "wanted"), [(1.09, 2), (1.11, 3)])
def test_an_objective_may_be_missed_by_a_tenth(wait_s: float, wanted: int) -> None:
    assert plan(prefills(begun=30, wait_s=wait_s, busy_share=0.7)).replicas["prefill"] == wanted


TTFT = scaling(objectives={"ttftMilliseconds": 1000})


def first_tokens(ttft_s: float | None, **load: Any) -> Loads:
    base = {"begun": 30, "wait_s": 0.3, "busy_share": 0.7, **load}
    return Loads(roles={"prefill": RoleLoad(ready=2, **base)}, ttft_s=ttft_s)


def test_first_tokens_that_are_late_by_a_queue_add_prefill_nodes() -> None:
    assert plan(first_tokens(1.4), TTFT).changes == (
        "prefill 2 -> 3: first tokens take 1400 ms of 1000 ms",
    )
    assert plan(first_tokens(1.4, wait_s=0.0, busy_share=0.8), TTFT).replicas["prefill"] == 3


def test_first_tokens_that_are_late_without_a_queue_add_none() -> None:
    """The prompts are long: another node would compute them no faster."""
    assert plan(first_tokens(1.4, wait_s=0.05), TTFT).replicas["prefill"] == 2


def test_without_any_objective_prompts_should_wait_no_longer_than_a_second() -> None:
    free = scaling(objectives={})
    assert plan(prefills(begun=30, wait_s=1.4), free).replicas["prefill"] == 3
    assert plan(prefills(begun=30, wait_s=0.9, busy_share=0.7), free).replicas["prefill"] == 2


def test_an_objective_of_the_first_token_alone_judges_no_wait() -> None:
    assert plan(first_tokens(0.9, wait_s=5.0), TTFT).replicas["prefill"] == 2


def test_tokens_that_take_longer_than_the_objective_add_decode_nodes() -> None:
    found = plan(decodes(itl_s=0.07, running=20))
    assert found.changes == ("decode 2 -> 3: tokens take 70 ms of 50 ms",)


def test_with_fewer_requests_than_nodes_no_decode_node_is_added_for_slow_tokens() -> None:
    assert plan(decodes(itl_s=0.5, running=2)).replicas["decode"] == 2


def test_pages_in_use_add_decode_nodes() -> None:
    assert plan(decodes(pool_share=1.0)).changes == ("decode 2 -> 3: 100% of the pages are in use",)


def test_requests_that_wait_for_pages_add_decode_nodes() -> None:
    assert plan(decodes(begun=10, wait_s=1.5)).changes == (
        "decode 2 -> 3: requests wait 1.50 s for pages",
    )


def test_unknown_load_changes_nothing_and_forgets_nothing() -> None:
    memory = plan(IDLE).status
    found = plan(Loads(), memory=memory, now=NOW + 10 * QUIET)
    assert found.replicas == {"prefill": 2, "decode": 2} and found.changes == ()
    assert found.status == memory


def test_a_role_without_a_serving_node_keeps_its_replicas() -> None:
    assert plan(prefills(ready=0, waiting=50)).replicas["prefill"] == 2


def test_replicas_outside_the_bounds_are_brought_inside_whatever_the_load() -> None:
    found = plan(Loads(), scaling(decode={"minReplicas": 3, "maxReplicas": 4}), decode=1, prefill=9)
    assert found.replicas == {"prefill": 8, "decode": 3}
    assert found.changes[1] == "decode 1 -> 3: minReplicas is 3, maxReplicas 4"


def test_a_role_without_bounds_is_left_alone() -> None:
    found = plan(prefills(begun=30, wait_s=9.0), scaling(prefill=None))
    assert found.replicas == {"decode": 2}


def after(seconds: float, loads: Loads, memory: AutoscalingStatus, **how: Any) -> Plan:
    return plan(loads, memory=memory, now=NOW + seconds, **how)


def test_nodes_go_only_after_the_quiet_time() -> None:
    first = plan(IDLE)
    assert first.replicas == {"prefill": 2, "decode": 2}
    early = after(QUIET - 1, IDLE, first.status)
    assert early.replicas == {"prefill": 2, "decode": 2}
    late = after(QUIET, IDLE, early.status)
    assert late.replicas == {"prefill": 1, "decode": 1}
    assert late.changes[0] == "prefill 2 -> 1: 1 would have done for 100 s"


def test_a_busy_moment_begins_the_quiet_time_anew() -> None:
    quiet = after(50, IDLE, plan(IDLE).status)
    busy = after(90, CALM, quiet.status)
    assert after(130, IDLE, busy.status).replicas == {"prefill": 2, "decode": 2}


def test_as_many_stay_as_were_needed_at_most_in_the_quiet_time() -> None:
    some = prefills(ready=4, busy_share=0.4)  # 1.6 nodes' work: 3 with room
    none = prefills(ready=4)
    memory = plan(none, prefill=4).status
    memory = after(60, some, memory, prefill=4).status
    assert after(QUIET, none, memory, prefill=4).replicas["prefill"] == 3


def test_quiet_that_nobody_saw_is_no_quiet() -> None:
    first = plan(IDLE)
    assert after(1000, IDLE, first.status).replicas == {"prefill": 2, "decode": 2}


def test_nodes_that_do_not_serve_yet_are_no_sign_of_quiet() -> None:
    memory = plan(prefills(ready=1), prefill=2).status
    assert after(QUIET, prefills(ready=1), memory).replicas["prefill"] == 2


def test_what_the_work_fills_is_kept_though_nothing_waits() -> None:
    filled = prefills(busy_share=0.7)
    memory = plan(filled).status
    assert after(QUIET, filled, memory).replicas["prefill"] == 2


def test_nodes_that_were_too_few_for_such_work_are_not_tried_again_until_it_has_eased() -> None:
    short = plan(prefills(ready=1, begun=9, wait_s=3.0, busy_share=0.5), prefill=1)
    assert short.replicas["prefill"] == 2
    same, eased = prefills(busy_share=0.25), prefills(busy_share=0.2)
    for load, left in ((same, 2), (eased, 1)):
        memory = after(10, load, short.status).status
        assert after(10 + QUIET, load, memory).replicas["prefill"] == left


def test_what_is_remembered_fits_the_status_and_changes_it_once_a_minute_only() -> None:
    looks = [after(seconds, CALM, AutoscalingStatus()).status for seconds in (0, 10, 30)]
    assert len({status.model_dump_json() for status in looks}) <= 2
    text = looks[0].model_dump(by_alias=True)
    assert AutoscalingStatus.model_validate(text) == looks[0]


BOTH = scaling(keepRatio=True)


def uneven(wait_s: float = 1.4) -> Loads:
    """Prefill is short, decode idles."""
    return Loads(
        roles={
            "prefill": RoleLoad(ready=2, begun=30, wait_s=wait_s),
            "decode": RoleLoad(ready=3, begun=1),
        }
    )


def test_keep_ratio_moves_what_one_role_can_spare_to_the_other_at_once() -> None:
    found = plan(uneven(), BOTH, decode=3)
    assert found.replicas == {"prefill": 3, "decode": 2}
    assert "decode 3 -> 2: prefill needs them more" in found.changes
    assert plan(uneven(), decode=3).replicas == {"prefill": 3, "decode": 3}, "without it: no"


def test_keep_ratio_moves_once_a_minute_at_most() -> None:
    moved = plan(uneven(), BOTH, decode=3).status
    soon = plan_scale(uneven(), BOTH, {"prefill": 2, "decode": 3}, moved, NOW + 30)
    assert soon.replicas == {"prefill": 3, "decode": 3}
    later = plan_scale(uneven(), BOTH, {"prefill": 2, "decode": 3}, moved, NOW + 60)
    assert later.replicas == {"prefill": 3, "decode": 2}


def test_keep_ratio_takes_nothing_below_the_bounds_nor_what_is_needed() -> None:
    bounded = scaling(keepRatio=True, decode={"minReplicas": 3, "maxReplicas": 4})
    assert plan(uneven(), bounded, decode=3).replicas == {"prefill": 3, "decode": 3}
    busy = Loads(
        roles={
            "prefill": RoleLoad(ready=2, begun=30, wait_s=1.4),
            "decode": RoleLoad(ready=3, begun=30, running=9, pool_share=0.8),
        }
    )
    assert plan(busy, BOTH, decode=3).replicas == {"prefill": 3, "decode": 3}


loads = st.builds(
    RoleLoad,
    ready=st.integers(0, 12),
    running=st.integers(0, 200),
    waiting=st.integers(0, 500),
    pool_share=st.floats(0, 1),
    begun=st.floats(0, 1000),
    wait_s=st.floats(0, 600),
    busy_share=st.floats(0, 1),
    window_s=st.floats(5, 60),
)
seconds = st.none() | st.floats(0, 100)


@given(loads, loads, seconds, seconds, st.integers(0, 20), st.integers(0, 20), st.booleans())
@settings(deadline=None)
def test_replicas_are_always_inside_the_bounds(
    prefill: RoleLoad,
    decode: RoleLoad,
    ttft_s: float | None,
    itl_s: float | None,
    current: int,
    other: int,
    keep: bool,
) -> None:
    bounds = scaling(
        prefill={"minReplicas": 2, "maxReplicas": 5},
        decode={"minReplicas": 1, "maxReplicas": 3},
        objectives={"queueSeconds": 0.5, "ttftMilliseconds": 800, "tpotMilliseconds": 40},
        scaleDownSeconds=0,
        keepRatio=keep,
    )
    seen = Loads(roles={"prefill": prefill, "decode": decode}, ttft_s=ttft_s, itl_s=itl_s)
    found = plan(seen, bounds, prefill=current, decode=other).replicas
    assert 2 <= found["prefill"] <= 5 and 1 <= found["decode"] <= 3


@given(loads, seconds, st.integers(1, 8), st.data())
@settings(max_examples=100, deadline=None)
def test_more_load_never_wants_fewer_nodes(
    load: RoleLoad, token_s: float | None, current: int, data: st.DataObject
) -> None:
    more = RoleLoad(
        ready=load.ready,
        running=load.running + data.draw(st.integers(0, 50)),
        waiting=load.waiting + data.draw(st.integers(0, 50)),
        pool_share=data.draw(st.floats(load.pool_share, 1)),
        begun=load.begun,
        wait_s=load.wait_s + data.draw(st.floats(0, 10)),
        busy_share=data.draw(st.floats(load.busy_share, 1)),
        window_s=load.window_s,
    )
    slower = None if token_s is None else token_s + data.draw(st.floats(0, 10))
    judged = scaling(
        objectives={"queueSeconds": 1, "ttftMilliseconds": 900, "tpotMilliseconds": 50},
        scaleDownSeconds=0,
    )
    for role in ("prefill", "decode"):
        less_seen = Loads(roles={role: load}, ttft_s=token_s, itl_s=token_s)  # type: ignore[dict-item]
        more_seen = Loads(roles={role: more}, ttft_s=slower, itl_s=slower)  # type: ignore[dict-item]
        less = plan(less_seen, judged, prefill=current, decode=current).replicas
        assert plan(more_seen, judged, prefill=current, decode=current).replicas[role] >= less[role]  # type: ignore[index]

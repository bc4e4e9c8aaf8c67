from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cluster_views import deployment, pod, seen
from pd_clusters import KEYS, cluster

from kvloop.operator.attach import AttachOutcome
from kvloop.operator.clusters.inputs import Inputs, Problem
from kvloop.operator.clusters.loop import LoopSeen, judge_loop
from kvloop.operator.clusters.progress import judge_progress
from kvloop.operator.clusters.ready import judge_ready
from kvloop.operator.clusters.seen import Seen, changed_at
from kvloop.operator.clusters.told import Findings, as_manifest, events_of, status_of
from kvloop.operator.clusters.verdict import Verdict
from kvloop.operator.nodes.answers import CanaryReport, LastCanary, Pair, Stage
from kvloop.operator.types.base import Condition
from kvloop.operator.types.pd_cluster import Canary

CACHED = {"sharedCacheRef": {"name": "a"}}
NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)


def ready_condition(status: str = "True") -> Condition:
    return Condition(
        type="Ready", status=status, reason="Why", message="words", last_transition_time=""
    )


def ready(what: Seen, attached: AttachOutcome | None = None, **more: Any) -> Verdict:
    cache = more.pop("cache", ready_condition())
    inputs = Inputs(keys=KEYS, cache_ready=cache, **more)
    return judge_ready(cluster(**CACHED), inputs, what, attached)


def test_ready_is_true_when_all_pods_serve_and_have_the_cache() -> None:
    verdict = ready(seen(), AttachOutcome(attached=("a",)))
    assert (verdict.status, verdict.reason) == ("True", "Ready")
    assert verdict.message == "1 prefill, 1 decode, 1 router ready"


def test_a_role_with_too_few_ready_pods_is_named() -> None:
    verdict = ready(seen(pod("prefill"), pod("router"), pod("decode", ready=False)))
    assert (verdict.status, verdict.reason) == ("False", "PodsNotReady")
    assert verdict.message == "decode: 0 of 1 pods are ready"


def test_a_deleted_pod_counts_no_more() -> None:
    gone = pod("decode")
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert ready(seen(pod("prefill"), pod("router"), gone)).reason == "PodsNotReady"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
            "ImagePullFailed",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "restartCount": 2,
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"exitCode": 1, "message": "a\nno model"}},
                    }
                ]
            },
            "CrashLooping",
        ),
    ],
)
def test_trouble_of_a_pod_is_the_reason(status: dict[str, Any], reason: str) -> None:
    verdict = ready(seen(pod("prefill"), pod("router"), pod("decode", ready=False, **status)))
    assert verdict.reason == reason
    assert verdict.message.startswith("decode: 0 of 1 pods are ready; pod demo-decode-0")


def test_a_pod_that_no_machine_takes_is_insufficient_capacity() -> None:
    waiting = pod("decode", ready=False)
    scheduled = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}
    waiting["status"]["conditions"].append(scheduled)
    verdict = ready(seen(pod("prefill"), pod("router"), waiting))
    assert verdict.reason == "InsufficientCapacity" and "0/1 nodes" in verdict.message


@pytest.mark.parametrize(("role", "reason"), [("decode", "NoReplicas"), ("router", "NoReplicas")])
def test_nobody_answers_without_decode_or_router(role: str, reason: str) -> None:
    assert ready(seen(**{role: deployment(role, 0)})).reason == reason


def test_decode_alone_serves() -> None:
    what = seen(pod("decode"), pod("router"), prefill=deployment("prefill", 0))
    assert ready(what).status == "True"


@pytest.mark.parametrize(
    ("cache", "attached", "words"),
    [
        (None, AttachOutcome(), "tells nothing"),
        (ready_condition("False"), AttachOutcome(), "Why: words"),
        (ready_condition(), AttachOutcome(pending=("p1",)), "being attached by p1"),
        (ready_condition(), AttachOutcome(faults={"p1": "no answer"}), "p1: no answer"),
    ],
)
def test_a_cache_that_is_not_there_is_told(
    cache: Condition | None, attached: AttachOutcome, words: str
) -> None:
    verdict = ready(seen(), attached, cache=cache)
    assert (verdict.status, verdict.reason) == ("False", "CacheNotReady")
    assert words in verdict.message


def test_a_cache_that_cannot_be_observed_does_not_keep_a_cluster_from_ready() -> None:
    assert ready(seen(), AttachOutcome(), cache=ready_condition("Unknown")).status == "True"


def test_what_cannot_be_built_is_told_first() -> None:
    problem = Problem(reason="SecretNotFound", message="spec.adminKeySecret: …")
    assert ready(seen(pod("router")), problem=problem).reason == "SecretNotFound"


# --- Progressing ----------------------------------------------------------------------------


def test_nothing_moves_when_every_pod_is_new() -> None:
    verdict = judge_progress(seen())
    assert (verdict.status, verdict.reason) == ("False", "Complete")


def test_a_rollout_says_what_was_changed_and_how_far_it_is() -> None:
    why = {"kvloop.dev/reason": "--page-size 32"}
    live = deployment("decode", 2, replicas=3, updatedReplicas=1, annotations=why)
    verdict = judge_progress(seen(decode=live))
    assert (verdict.status, verdict.reason) == ("True", "RolloutRequired")
    assert "--page-size 32" in verdict.message and "decode: 1 of 2 pods are new" in verdict.message


def test_scaling_is_no_rollout() -> None:
    why = {"kvloop.dev/reason": "of an earlier rollout"}
    live = deployment("decode", 2, replicas=1, updatedReplicas=1, annotations=why)
    assert judge_progress(seen(decode=live)).reason == "Scaling"


def test_a_rollout_that_nobody_explains_is_still_told() -> None:
    live = deployment("decode", 1, replicas=2, updatedReplicas=1)
    assert judge_progress(seen(decode=live)).reason == "RollingOut"


def test_a_role_that_got_no_further_is_stuck() -> None:
    late = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    verdict = judge_progress(seen(prefill=deployment("prefill", conditions=late)))
    assert (verdict.status, verdict.reason) == ("False", "Stuck")


# --- the loop -------------------------------------------------------------------------------


def report(started_at: float = 1000.0, **states: str) -> CanaryReport:
    names = ("transfer", "write_back", "reuse")
    stages = [
        Stage(stage=name, state=states.get(name, "ok"), reason=f"why {name}")  # type: ignore[arg-type]
        for name in names
    ]
    broken = next((name for name in names if states.get(name) == "failed"), None)
    result: Any = "broken" if broken else "whole"
    return CanaryReport(result=result, broken_stage=broken, stages=stages, started_at=started_at)


def loop(*reports: CanaryReport | None, now: float = 1010.0, **more: Any) -> Any:
    canary = more.pop("canary", Canary())
    has_cache = more.pop("has_cache", True)
    canaries = [LastCanary(running=more.pop("running", False), last=one) for one in reports]
    return judge_loop(LoopSeen(canaries=canaries, **more), canary, has_cache=has_cache, now=now)


def told(found: Any) -> list[tuple[str, str]]:
    return [(v.status, v.reason) for v in found.verdicts.values()]


def test_a_whole_canary_verifies_all_three() -> None:
    found = loop(report())
    assert told(found) == [("True", "Verified")] * 3
    assert (found.status.result, found.status.at) == ("whole", "1970-01-01T00:16:40Z")
    assert not found.wants_canary


def test_a_broken_stage_is_false_with_its_reason_and_what_follows_is_unknown() -> None:
    found = loop(report(write_back="failed", reuse="skipped"))
    assert told(found) == [
        ("True", "Verified"),
        ("False", "CanaryFailed"),
        ("Unknown", "NotObserved"),
    ]
    assert found.verdicts["write_back"].message == "why write_back"
    assert (found.status.broken_stage, found.status.reason) == ("write_back", "why write_back")


def test_the_newest_report_of_all_routers_counts() -> None:
    found = loop(report(900.0, transfer="failed"), report(1000.0), report(800.0))
    assert told(found)[0] == ("True", "Verified")


def test_a_report_from_before_a_change_says_nothing_and_another_is_wanted() -> None:
    found = loop(report(1000.0), changed_at=1001.0)
    assert told(found) == [("Unknown", "Stale")] * 3
    assert found.wants_canary


def test_a_report_of_nodes_that_are_gone_is_stale() -> None:
    pair = Pair(decode="http://d", prefill="http://p", reader="http://q")
    one = CanaryReport(result="broken", broken_stage="reuse", pairs=[pair], started_at=1000.0)
    there = frozenset(("http://d", "http://p", "http://q"))
    assert told(loop(one, nodes=there))[0] != ("Unknown", "Stale")
    found = loop(one, nodes=there - {"http://q"})
    assert told(found) == [("Unknown", "Stale")] * 3 and found.wants_canary
    assert "http://q" in found.verdicts["reuse"].message


def test_while_something_changes_no_canary_is_wanted() -> None:
    found = loop(report(), is_changing="the cache moves")
    assert told(found) == [("Unknown", "Stale")] * 3
    assert "the cache moves" in found.verdicts["reuse"].message and not found.wants_canary


def test_a_canary_that_runs_is_waited_for() -> None:
    assert not loop(report(), changed_at=2000.0, running=True).wants_canary


def test_an_old_report_is_stale() -> None:
    canary = Canary(interval_seconds=10, timeout_seconds=5)
    assert told(loop(report(), now=1039.0, canary=canary))[0] == ("True", "Verified")
    assert told(loop(report(), now=1041.0, canary=canary))[0] == ("Unknown", "Stale")


def test_before_the_first_canary_nothing_is_claimed() -> None:
    found = loop(None)
    assert told(found) == [("Unknown", "NotObserved")] * 3 and found.wants_canary


def test_routers_that_cannot_be_asked_are_named() -> None:
    found = loop(faults=["http://r: no answer"])
    assert told(found)[0] == ("Unknown", "RouterNotReached")
    assert "http://r" in found.verdicts["transfer"].message


def test_without_a_canary_nothing_is_observed() -> None:
    found = loop(report(), canary=Canary(enabled=False))
    assert told(found) == [("Unknown", "NotObserved")] * 3 and not found.wants_canary


def test_without_a_shared_cache_reuse_is_not_verified() -> None:
    found = loop(report(write_back="failed", reuse="skipped"), has_cache=False)
    assert told(found) == [
        ("True", "Verified"),
        ("False", "NoSharedCache"),
        ("False", "NoSharedCache"),
    ]


def test_a_pod_that_came_or_turned_is_a_change() -> None:
    assert changed_at([pod("decode", since="2026-01-01T00:00:09Z")]) == 1767225609.0
    assert changed_at([]) == 0.0


# --- the status -----------------------------------------------------------------------------


def findings(**more: Any) -> Findings:
    fields = {
        "ready": Verdict(status="True", reason="Ready"),
        "progress": Verdict(status="False", reason="Complete"),
        "loop": loop(report()),
        "seen": seen(),
    }
    return Findings(**{**fields, **more})


def test_the_status_has_what_columns_and_scaling_read() -> None:
    found = findings(hit_rate=0.913, release_tag="t", revision="r", attached_cache="a")
    status = as_manifest(status_of(cluster(), found, [], NOW))
    assert status["observedGeneration"] == 1
    assert [one["type"] for one in status["conditions"]] == [
        "Ready",
        "Progressing",
        "TransferVerified",
        "WriteBackVerified",
        "ReuseVerified",
    ]
    assert status["decode"]["ready"] == status["decode"]["updated"] == 1
    assert status["decode"]["selector"] == (
        "app.kubernetes.io/instance=pdc-demo,app.kubernetes.io/component=decode"
    )
    assert (status["hit"], status["hitRate"], status["reuse"]) == ("91%", 0.913, "True")
    assert status["endpoint"] == "http://demo.ns.svc:8000"
    assert (status["releaseTag"], status["revision"], status["attachedCache"]) == ("t", "r", "a")


def test_events_are_of_changes_only() -> None:
    first = status_of(cluster(), findings(), [], NOW).conditions
    assert {event.reason for event in events_of([], first)} == {"Ready", "Complete", "Verified"}
    assert events_of(first, first) == []
    bad = findings(ready=Verdict(status="False", reason="CrashLooping", message="pod x"))
    second = status_of(cluster(), bad, first, NOW).conditions
    (event,) = events_of(first, second)
    assert (event.type, event.reason) == ("Warning", "CrashLooping")
    assert event.message == "Ready is False: pod x"

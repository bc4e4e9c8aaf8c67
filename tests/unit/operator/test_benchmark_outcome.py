"""What a benchmark's Job, pod and report say of its run."""

from typing import Any

import pytest
from bench_reports import make_report
from benchmark_resources import SETTINGS, URL, benchmark, over, pod_of, terminated

from kvloop.benchmark.outlets.termination import Ending, summarize
from kvloop.operator.build.benchmark import CONTAINER, build_job
from kvloop.operator.runs.outcome import Outcome, ended, going_on, vanished
from kvloop.operator.runs.summary import read_summary, results

JOB = build_job(benchmark(timeoutSeconds=60), URL, SETTINGS)
GOOD = Ending(phase="Succeeded", reason="Completed", message="2 x sooner")
BAD = Ending(phase="Failed", reason="RequestsFailed", message="9 of 10 requests were answered")


def summary(ending: Ending = GOOD, **shape: Any) -> str:
    """As `kvloop bench` writes it."""
    return summarize(make_report(1, **shape), ending).decode()


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return pod_of(JOB, phase="Pending", state={"waiting": {"reason": reason, "message": message}})


def end_of(state: dict[str, Any], **status: Any) -> Outcome:
    """Of a Job that failed, its pod in this state."""
    pod = pod_of(JOB, state=state, phase="Failed", **status)
    return ended(over(JOB, kind="Failed", reason="BackoffLimitExceeded"), [pod], CONTAINER, None)


def test_the_real_summary_becomes_the_status() -> None:
    found = read_summary(summary(arms=("on", "bypassed"), conversations=20, turns=4))
    assert found is not None
    fields = results(found)
    assert [arm["arm"] for arm in fields["arms"]] == ["on", "bypassed"]
    on, bypassed = fields["arms"]
    assert on["completed"] == 80 and on["failed"] == 0
    assert on["ttft"] == {
        "meanMs": found["arms"]["on"]["later_turns"]["ttft_ms"]["mean"],
        "p50Ms": found["arms"]["on"]["later_turns"]["ttft_ms"]["p50"],
        "p99Ms": found["arms"]["on"]["later_turns"]["ttft_ms"]["p99"],
    }
    assert 0 < on["hitRate"] <= 1 and bypassed["hitRate"] == 0
    tiers = on["hitRateByTier"]
    whole = sum(tiers[name] for name in ("transfer_skipped", "device", "host", "storage"))
    assert whole == pytest.approx(on["hitRate"], rel=0.01)
    assert on["requestsPerSecond"] > 0 and on["outputTokensPerSecond"] > 0
    assert fields["durationSeconds"] == found["duration_s"]
    mean, p99 = on["ttft"]["meanMs"], on["ttft"]["p99Ms"]
    assert fields["ttftWithReuse"] == f"{mean:.4g}/{p99:.4g} ms"
    mean, p99 = bypassed["ttft"]["meanMs"], bypassed["ttft"]["p99Ms"]
    assert fields["ttftWithoutReuse"] == f"{mean:.4g}/{p99:.4g} ms"
    assert fields["hit"] == f"{100 * on['hitRate']:.1f} %"


def test_the_speedup_is_the_claim_turned_round_with_its_interval() -> None:
    claim = {"name": "ttft_later_turns", "arm": "on", "value": 0.5, "low": 0.4, "high": 0.8}
    assert results({"claims": [claim]})["speedup"] == "2x [1.25, 2.5]"
    assert results({"claims": [claim | {"low": None}]})["speedup"] == "2x"
    assert results({"claims": [claim | {"name": "itl"}]})["speedup"] == ""
    assert results({"claims": [claim | {"arm": "l3_only"}]})["speedup"] == ""


def test_without_arm_bypassed_all_miss_is_the_control() -> None:
    arms = {
        name: {"later_turns": {"ttft_ms": {"mean": mean, "p99": 2 * mean}}}
        for name, mean in (("on", 1.0), ("all_miss", 3.0))
    }
    assert results({"arms": arms})["ttftWithoutReuse"] == "3/6 ms"


def test_a_server_that_names_no_tiers_leaves_them_out() -> None:
    found = read_summary(summary(arms=("on",), has_sources=False, has_hits=False))
    assert found is not None
    fields = results(found)
    assert fields["arms"][0]["hitRateByTier"] == {} and "hitRate" not in fields["arms"][0]
    assert (fields["hit"], fields["speedup"], fields["ttftWithoutReuse"]) == ("", "", "")


@pytest.mark.parametrize(
    "text", ["", "Traceback", "[1]", '{"schema": "kvloop.bench.summary/9"}', "{"]
)
def test_what_is_no_summary_is_none(text: str) -> None:
    assert read_summary(text) is None


def test_a_run_that_went_well_has_succeeded() -> None:
    pod = pod_of(JOB, state=terminated(summary()), phase="Succeeded")
    outcome = ended(over(JOB), [pod], CONTAINER, None)
    assert (outcome.phase, outcome.reason, outcome.message) == (
        "Succeeded",
        "Completed",
        "2 x sooner",
    )
    assert outcome.summary is not None
    assert outcome.started_at == outcome.summary["started_at"]
    assert outcome.finished_at == "2026-01-01T00:01:00Z"


def test_a_run_with_failures_says_its_own_reason_and_keeps_its_numbers() -> None:
    outcome = end_of(terminated(summary(BAD), code=1, reason="Error"))
    assert (outcome.phase, outcome.reason, outcome.message) == ("Failed", BAD.reason, BAD.message)
    assert outcome.summary is not None and outcome.summary["arms"]


def test_a_flag_that_the_parser_refused_is_told_by_the_logs_last_line() -> None:
    log = "usage: kvloop bench\n\nkvloop bench: error: argument --turns: must be a number\n"
    outcome = end_of(terminated(log, code=2, reason="Error"))
    assert (outcome.phase, outcome.reason) == ("Failed", "BadInput")
    assert outcome.message == "kvloop bench: error: argument --turns: must be a number"


def test_a_container_that_took_too_much_memory_is_told() -> None:
    outcome = end_of(terminated(code=137, reason="OOMKilled"))
    assert outcome.reason == "OutOfMemory"
    assert "resources.limits.memory" in outcome.message


def test_a_crash_is_told_with_its_exit_code() -> None:
    outcome = end_of(terminated("x\nBoom\n", code=139, reason="Error"))
    assert (outcome.reason, outcome.message) == ("Crashed", "exit code 139: Boom")


def test_an_end_without_a_summary_is_no_success() -> None:
    pod = pod_of(JOB, state=terminated("done"), phase="Succeeded")
    outcome = ended(over(JOB), [pod], CONTAINER, None)
    assert (outcome.phase, outcome.reason) == ("Failed", "NoSummary")


def test_an_evicted_pod_is_told_by_the_kubelets_words() -> None:
    outcome = end_of({}, reason="Evicted", message="The node was low on resource: memory.")
    assert (outcome.reason, outcome.message) == ("Evicted", "The node was low on resource: memory.")
    outcome = end_of(terminated(code=137, reason="Error"), reason="Evicted", message="low on disk")
    assert (outcome.reason, outcome.message) == ("Evicted", "low on disk")


def test_a_pod_that_failed_before_its_container_ran_is_told() -> None:
    outcome = end_of({}, reason="NodeAffinity", message="Predicate failed")
    assert (outcome.reason, outcome.message) == ("NodeAffinity", "Predicate failed")
    assert end_of({}).reason == "PodFailed"


def test_a_container_that_the_kubelet_lost_sight_of_is_told_as_it_ended() -> None:
    lost = terminated("it could not be located", code=137, reason="ContainerStatusUnknown")
    container = {"name": CONTAINER, "state": {"waiting": {}}, "lastState": lost}
    outcome = end_of({}, containerStatuses=[container])
    assert (outcome.reason, outcome.message) == (
        "Crashed",
        "exit code 137: it could not be located",
    )


def test_a_pod_that_is_gone_is_told_by_the_jobs_words() -> None:
    outcome = ended(over(JOB, kind="Failed", reason="BackoffLimitExceeded"), [], CONTAINER, None)
    assert outcome.reason == "PodLost"
    assert "backoff limit" in outcome.message
    assert outcome.finished_at == "2026-01-01T00:01:02Z"


def test_where_the_pod_is_gone_the_report_tells() -> None:
    outcome = ended(over(JOB), [], CONTAINER, read_summary(summary()))
    assert (outcome.phase, outcome.reason) == ("Succeeded", "Completed")


def test_a_run_out_of_time_says_so_and_what_stood_in_its_way() -> None:
    late = over(JOB, kind="Failed", reason="DeadlineExceeded")
    outcome = ended(late, [], CONTAINER, None, before="0/1 nodes are available")
    assert outcome.reason == "DeadlineExceeded"
    assert outcome.message == "not done within timeoutSeconds 60; 0/1 nodes are available"


def test_a_run_out_of_time_keeps_what_it_measured() -> None:
    cut = Ending(phase="Failed", reason="CutShort", message="3 of 10 requests were answered")
    late = over(JOB, kind="Failed", reason="DeadlineExceeded")
    outcome = ended(late, [], CONTAINER, read_summary(summary(cut)))
    assert (outcome.phase, outcome.reason) == ("Failed", "DeadlineExceeded")
    assert outcome.message.endswith("3 of 10 requests were answered")
    assert outcome.summary is not None


def test_a_run_killed_while_it_wrote_its_report_has_failed() -> None:
    outcome = end_of(terminated(summary(), code=137, reason="OOMKilled"))
    assert (outcome.phase, outcome.reason) == ("Failed", "OutOfMemory")
    assert outcome.summary is not None  # what it measured stays


def test_a_job_that_somebody_deleted_is_told_unless_its_report_is_there() -> None:
    outcome = vanished("chats-1", None)
    assert (outcome.phase, outcome.reason) == ("Failed", "JobDeleted")
    assert "chats-1" in outcome.message
    assert vanished("chats-1", read_summary(summary())).phase == "Succeeded"


@pytest.mark.parametrize(
    ("pod", "reason", "words"),
    [
        (waiting("ErrImagePull", "not found"), "ImagePullFailed", "ErrImagePull: not found"),
        (waiting("ImagePullBackOff"), "ImagePullFailed", "ImagePullBackOff"),
        (waiting("ErrImageNeverPull"), "ImagePullFailed", "ErrImageNeverPull"),
        (waiting("InvalidImageName"), "ImagePullFailed", "InvalidImageName"),
        (
            waiting("CreateContainerConfigError", 'secret "x" not found'),
            "InvalidConfig",
            'CreateContainerConfigError: secret "x" not found',
        ),
        (waiting("ContainerCreating"), "Starting", "volumes"),
        (
            pod_of(
                JOB,
                phase="Pending",
                state={},
                conditions=[
                    {"type": "PodScheduled", "status": "False", "message": "Insufficient cpu"}
                ],
            ),
            "InsufficientCapacity",
            "Insufficient cpu",
        ),
        (
            pod_of(
                JOB,
                phase="Pending",
                state={},
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "message": "pod has unbound immediate PersistentVolumeClaims",
                    }
                ],
            ),
            "VolumeNotMounted",
            "unbound",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_run_waits_for_is_told(pod: dict[str, Any], reason: str, words: str) -> None:
    outcome = going_on([pod], CONTAINER)
    assert (outcome.phase, outcome.reason) == ("Pending", reason)
    assert words in outcome.message


def test_a_job_without_a_pod_is_told() -> None:
    outcome = going_on([], CONTAINER)
    assert (outcome.phase, outcome.reason) == ("Pending", "Starting")
    assert "kubectl describe job" in outcome.message


def test_a_run_that_goes_on_is_running_until_its_job_has_ended() -> None:
    began = {"running": {"startedAt": "2026-01-01T00:00:10Z"}}
    for state in (began, terminated("", code=1)):
        outcome = going_on([pod_of(JOB, state=state)], CONTAINER)
        assert (outcome.phase, outcome.started_at) == ("Running", "2026-01-01T00:00:10Z")

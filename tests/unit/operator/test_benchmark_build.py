"""The Job of a MultiTurnBenchmark."""

from typing import Any

import kubernetes_validate
import pytest
from benchmark_resources import SETTINGS, URL, benchmark

from kvloop.cli.main import build_parser
from kvloop.operator.build.benchmark import (
    RUN,
    build_job,
    build_report,
    build_rights,
    command,
    digest,
    job_name,
)
from kvloop.operator.types.benchmark import OWN_FLAGS

FILE = {"configMap": "inputs", "path": "chats.jsonl"}
LOADS: list[dict[str, Any]] = [
    {"kind": "multi-turn", "flags": {"clients": "8", "turns": "2:6", "text": ""}, "seed": 7},
    {"kind": "long-doc", "flags": {"documents": "2", "apart": ""}},
    {"kind": "agent", "flags": {"agents": "3", "subagents": "1"}},
    {"kind": "trace", "flags": {"limit": "50", "time-scale": "4"}, "file": FILE},
    {"kind": "dataset", "flags": {"answers": "recorded"}, "file": FILE},
]


def job(**spec: Any) -> dict[str, Any]:
    return build_job(benchmark(**spec), URL, SETTINGS)


def container(**spec: Any) -> dict[str, Any]:
    (found,) = job(**spec)["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: str(load["kind"]))
def test_the_real_parser_takes_every_kind_of_load(load: dict[str, Any]) -> None:
    words = command(
        benchmark(
            workload=load,
            target={"url": URL, "model": "a model"},
            arms=["on", "all_miss"],
            repeats=3,
            extraArgs=["--slo-ttft-ms", "500"],
        ),
        URL,
    )
    assert words[0] == "kvloop"
    args = build_parser().parse_args(words[1:])
    assert (args.url, args.model, args.seed) == (URL, "a model", load.get("seed", 0))
    assert (args.arms, args.rounds) == (("on", "all_miss"), 3)
    assert args.config_map == "chats-report"
    assert args.slo_ttft_ms == 500
    if "file" in load:
        assert str(getattr(args, load["kind"])) == "/input/chats.jsonl"


def test_arms_and_repeats_that_are_unset_are_the_commands_own_choice() -> None:
    args = build_parser().parse_args(command(benchmark(), URL)[1:])
    assert (args.arms, args.rounds, args.model) == (None, None, None)


def test_a_flag_with_an_empty_value_is_a_switch_and_a_value_may_begin_with_a_dash() -> None:
    words = command(benchmark(workload={"flags": {"text": "", "title": "-x"}}), URL)
    args = build_parser().parse_args(words[1:])
    assert (args.content, args.title) == ("text", "-x")


def test_the_flags_that_are_refused_are_flags_of_the_command() -> None:
    known = _flags("multi-turn") | _flags("trace") | _flags("dataset") | {"url"}
    assert set(OWN_FLAGS) <= known


def _flags(kind: str) -> set[str]:
    parser = build_parser()
    for word in ("bench", kind):
        parser = parser._subparsers._group_actions[0].choices[word]  # type: ignore[union-attr, index, assignment]
    return {name[2:] for action in parser._actions for name in action.option_strings}


def test_equal_specs_of_one_resource_are_one_run() -> None:
    assert job_name(benchmark(repeats=2)) == job_name(benchmark(repeats=2))
    assert job_name(benchmark(repeats=2)) != job_name(benchmark(repeats=3))


def test_a_resource_that_was_made_anew_is_another_run() -> None:
    assert digest(benchmark(uid="a")) != digest(benchmark(uid="b"))


def test_when_things_are_removed_does_not_make_another_run() -> None:
    assert digest(benchmark(ttlSecondsAfterFinished=5, deleteAfterSeconds=9)) == digest(benchmark())


def test_a_jobs_name_is_a_label_however_long_the_resources_is() -> None:
    long = benchmark()
    long = long.model_copy(
        update={"metadata": long.metadata.model_copy(update={"name": "n" * 49 + "." + "n" * 200})}
    )
    assert len(job_name(long)) <= 63
    assert job_name(long).rpartition("-")[0] == "n" * 49


def test_a_run_is_not_tried_again_and_ends_in_time() -> None:
    spec = job(timeoutSeconds=77)["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 77)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_the_pod_may_patch_its_own_report_and_nothing_else() -> None:
    _, role, binding = build_rights(benchmark())
    (rule,) = role["rules"]
    assert rule == {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["chats-report"],
        "verbs": ["patch"],
    }
    assert binding["subjects"][0]["name"] == job()["spec"]["template"]["spec"]["serviceAccountName"]


def test_the_report_is_the_resources_and_outlives_the_job() -> None:
    (owner,) = build_report(benchmark())["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("MultiTurnBenchmark", "uid-of-mtb")
    names = {variable["name"] for variable in container()["env"]}
    assert not names & {"KVLOOP_JOB_NAME", "KVLOOP_POD_NAME"}  # which would make it the Job's


def test_the_report_says_of_which_run_it_is() -> None:
    assert build_report(benchmark())["metadata"]["annotations"][RUN] == digest(benchmark())


def test_the_summary_goes_to_the_termination_message_and_the_parsers_words_too() -> None:
    found = container()
    assert {"name": "KVLOOP_TERMINATION_LOG", "value": "/dev/termination-log"} in found["env"]
    assert found["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_a_key_is_in_the_environment_and_not_in_the_command() -> None:
    found = container(target={"url": URL, "apiKeySecret": {"name": "keys", "key": "mine"}})
    source = {"secretKeyRef": {"name": "keys", "key": "mine"}}
    assert {"name": "KVLOOP_API_KEY", "valueFrom": source} in found["env"]
    assert not any("api-key" in word for word in found["command"])


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (FILE, {"configMap": {"name": "inputs"}}),
        (
            {"volume": {"persistentVolumeClaim": "data"}, "path": "a/b.jsonl"},
            {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
        ),
        ({"volume": {"hostPath": "/srv"}, "path": "b.jsonl"}, {"hostPath": {"path": "/srv"}}),
    ],
    ids=["config map", "claim", "host path"],
)
def test_a_loads_file_is_mounted(file: dict[str, Any], source: dict[str, Any]) -> None:
    spec = job(workload={"kind": "dataset", "file": file})["spec"]["template"]["spec"]
    assert {"name": "input", **source} in spec["volumes"]
    assert {"name": "input", "mountPath": "/input"} in spec["containers"][0]["volumeMounts"]


def test_the_image_is_the_nodes_unless_one_is_named() -> None:
    assert container()["image"] == SETTINGS.node_image
    found = job(
        image={"reference": "other:2", "pullPolicy": "Never", "pullSecrets": [{"name": "s"}]}
    )
    pod = found["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "other:2"
    assert pod["containers"][0]["imagePullPolicy"] == "Never"
    assert pod["imagePullSecrets"] == [{"name": "s"}]


def test_resources_environment_and_place_are_as_asked() -> None:
    wanted = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    found = job(
        resources=wanted,
        env=[{"name": "A", "value": "b"}],
        nodeSelector={"disk": "fast"},
        tolerations=[{"operator": "Exists"}],
        priorityClassName="low",
    )
    pod = found["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == wanted
    assert pod["containers"][0]["env"][-1] == {"name": "A", "value": "b"}
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "low"


def test_the_pods_template_is_laid_over_last() -> None:
    found = job(
        podTemplate={
            "metadata": {"annotations": {"a": "b"}},
            "spec": {"containers": [{"name": "bench", "stdin": True}], "hostUsers": False},
        }
    )["spec"]["template"]
    assert found["metadata"]["annotations"] == {"a": "b"}
    assert found["spec"]["hostUsers"] is False
    assert found["spec"]["containers"][0]["stdin"] is True
    assert found["spec"]["containers"][0]["image"] == SETTINGS.node_image


def test_the_pod_is_of_the_restricted_level() -> None:
    pod = job()["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = pod["containers"][0]["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}


def test_services_of_the_namespace_are_no_variables_of_the_run() -> None:
    """A Service named kvloop would set KVLOOP_... of its own."""
    pod = build_job(benchmark(), URL, SETTINGS)["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("version", ["1.27", "1.37"])
def test_all_manifests_are_valid(version: str) -> None:
    made = benchmark(workload=LOADS[3], nodeSelector={"a": "b"})
    manifests = [build_job(made, URL, SETTINGS), build_report(made), *build_rights(made)]
    for one in manifests:
        kubernetes_validate.validate(one, version, strict=True)

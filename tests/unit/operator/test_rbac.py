"""Rights as data, and calls as RBAC names them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kvloop.operator import rbac
from kvloop.operator.kinds import KINDS, RESOURCES, kind_of
from kvloop.operator.runtime.calls import Call, classify
from kvloop.operator.runtime.watch import OWNED

CHART_FILE = Path(__file__).parents[3] / rbac.CHART_FILE


def test_the_charts_rules_are_those_of_the_code() -> None:
    assert CHART_FILE.read_text() == rbac.yaml_text(), "run python -m kvloop.operator.rbac"


def test_a_difference_is_told_by_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rbac.CHART_FILE.parent.mkdir(parents=True)
    assert rbac.main(["--check"]) == 1
    assert "run python -m kvloop.operator.rbac" in capsys.readouterr().out
    assert rbac.main([]) == 0
    assert rbac.main(["--check"]) == 0


def test_no_rule_has_a_wildcard_or_reaches_beyond_namespaced_kinds() -> None:
    known = {(kind.group, kind.plural) for kind in KINDS}
    for rule in (*rbac.WATCHED, *rbac.OWN):
        assert rule.why
        assert "*" not in (rule.group, *rule.resources, *rule.verbs, *rule.names)
        for resource in rule.resources:
            assert (rule.group, resource.partition("/")[0]) in known


def test_the_yaml_says_what_the_rules_say() -> None:
    read = yaml.safe_load(rbac.yaml_text())
    assert [rule["verbs"] for rule in read["watched"]] == [list(r.verbs) for r in rbac.WATCHED]
    assert read["own"][1]["resourceNames"] == ["kvloop-operator"]


def test_nobody_may_read_all_secrets_at_once() -> None:
    secrets = [rule for rule in rbac.WATCHED if "secrets" in rule.resources]
    assert [set(rule.verbs) & {"list", "watch"} for rule in secrets] == [set()]


@pytest.mark.parametrize("kind", [*RESOURCES, *OWNED], ids=lambda kind: kind.kind)
def test_what_is_watched_may_be_listed_and_watched(kind: object) -> None:
    assert kind in KINDS
    for verb in ("list", "watch"):
        call = Call(verb=verb, group=kind.group, resource=kind.plural)  # type: ignore[attr-defined]
        assert rbac.refused([call], rbac.WATCHED) == []


def test_a_call_that_no_rule_lets_pass_is_named() -> None:
    call = Call(verb="delete", resource="secrets", namespace="n")
    assert rbac.refused([call, Call(verb="get", path="/version")], rbac.WATCHED) == [call]


def test_a_subresource_needs_a_rule_of_its_own() -> None:
    call = Call(verb="create", resource="pods", subresource="exec")
    assert rbac.refused([call], rbac.WATCHED) == [call]


def test_rights_that_no_call_needed_are_named_but_those_that_are_only_handed_on() -> None:
    rule = rbac.Rule(
        why="w", resources=("pods",), verbs=("get", "list", "patch"), only_granted=("patch",)
    )
    left = rbac.unused([Call(verb="get", resource="pods", namespace="n")], [rule])
    assert left == [Call(verb="list", resource="pods")]


@pytest.mark.parametrize(
    ("method", "path", "query", "verb", "what", "namespace"),
    [
        ("GET", "/api/v1/namespaces/n/pods", {}, "list", "pods", "n"),
        ("GET", "/api/v1/pods", {"watch": "true"}, "watch", "pods", ""),
        ("GET", "/api/v1/namespaces/n/pods/p", {}, "get", "pods", "n"),
        ("PATCH", "/api/v1/namespaces/n/pods/p/status", {}, "patch", "pods/status", "n"),
        ("POST", "/apis/batch/v1/namespaces/n/jobs", {}, "create", "jobs.batch", "n"),
        ("PUT", "/apis/apps/v1/namespaces/n/deployments/d", {}, "update", "deployments.apps", "n"),
        (
            "DELETE",
            "/apis/apps/v1/namespaces/n/deployments/d",
            {},
            "delete",
            "deployments.apps",
            "n",
        ),
        ("GET", "/version", {}, "get", "/version", ""),
        ("GET", "/api", {}, "get", "/api", ""),
        ("GET", "/apis/apps/v1", {}, "get", "/apis/apps/v1", ""),
        ("GET", "/api/v1/namespaces", {}, "list", "namespaces", ""),
        ("GET", "/api/v1/namespaces/n", {}, "get", "namespaces", ""),
    ],
)
def test_a_request_is_what_the_authorizer_makes_of_it(
    method: str, path: str, query: dict[str, str], verb: str, what: str, namespace: str
) -> None:
    call = classify(method, path, query)
    assert (call.verb, call.what, call.namespace) == (verb, what, namespace)


def test_kinds_have_their_places_in_the_api() -> None:
    deployment = kind_of("apps/v1", "Deployment")
    assert deployment.path("n", "d", "scale") == "/apis/apps/v1/namespaces/n/deployments/d/scale"
    assert kind_of("v1", "Pod").path("") == "/api/v1/pods"
    assert kind_of("v1", "Pod").path("a/b", "../x") == "/api/v1/namespaces/a%2Fb/pods/..%2Fx"


def test_a_kind_that_the_operator_does_not_know_is_named() -> None:
    with pytest.raises(ValueError, match="v1 Node is none of the kinds"):
        kind_of("v1", "Node")

"""What users are told of a resource that is not what the schema says."""

from __future__ import annotations

from typing import Any

import pytest

from kvloop.operator.parse import (
    InvalidResource,
    parse_benchmark,
    parse_pd_cluster,
    parse_shared_cache,
)

METADATA = {"name": "demo", "namespace": "default", "managedFields": [{"manager": "kubectl"}]}
DEMO = {"model": {"demo": "smollm2"}}


def cluster(**spec: Any) -> dict[str, Any]:
    return {"metadata": METADATA, "spec": {**DEMO, **spec}}


def problems(**spec: Any) -> list[str]:
    with pytest.raises(InvalidResource) as raised:
        parse_pd_cluster(cluster(**spec))
    return [str(problem) for problem in raised.value.problems]


def test_a_right_resource_is_typed_and_knows_its_metadata() -> None:
    parsed = parse_pd_cluster(
        {"apiVersion": "kvloop.dev/v1alpha1", "kind": "PDCluster", "status": {"x": 1}, **cluster()}
    )
    assert parsed.metadata.name == "demo"
    assert parsed.spec.model.demo == "smollm2"
    assert parsed.spec.hicache.page_size == 64


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"prefil": {}}, "spec.prefil: there is no such field; did you mean prefill?"),
        (
            {"hicache": {"writepolicy": "x"}},
            "spec.hicache.writepolicy: there is no such field; did you mean writePolicy?",
        ),
        (
            {"rollout": {"quux": 1}},
            "spec.rollout.quux: there is no such field; those here are "
            "maxSurge, maxUnavailable, timeoutSeconds",
        ),
        (
            {"attachableCaches": [{"name": "a"}, {"nam": "b"}]},
            "spec.attachableCaches[1].name: is missing; it is needed: Its name.",
        ),
        (
            {"model": {"huggingFace": {}}},
            "spec.model.huggingFace.id: is missing; it is needed: "
            "Such as Qwen/Qwen2.5-7B-Instruct.",
        ),
        (
            {"hicache": {"writePolicy": "write-through"}},
            "spec.hicache.writePolicy: is 'write-through'; must be 'write_through', "
            "'write_through_selective' or 'write_back'; did you mean write_through?",
        ),
        (
            {"hicache": {"pageSize": 48}},
            "spec.hicache.pageSize: is 48; must be 1, 2, 4, 8, 16, 32, 64, 128 or 256",
        ),
        ({"decode": {"replicas": "3"}}, "spec.decode.replicas: is '3'; must be a whole number"),
        ({"decode": {"replicas": 1.5}}, "spec.decode.replicas: is 1.5; must be a whole number"),
        ({"decode": {"replicas": True}}, "spec.decode.replicas: is true; must be a whole number"),
        ({"decode": {"replicas": -1}}, "spec.decode.replicas: is -1; must be at least 0"),
        ({"router": {"port": 70000}}, "spec.router.port: is 70000; must be at most 65535"),
        ({"hicache": {"ratio": 0}}, "spec.hicache.ratio: is 0; must be above 0"),
        ({"hicache": {"ratio": "2"}}, "spec.hicache.ratio: is '2'; must be a number"),
        ({"canary": {"enabled": "yes"}}, "spec.canary.enabled: is 'yes'; must be true or false"),
        ({"zone": 3}, "spec.zone: is 3; must be text"),
        (
            {"zone": "Zone_A"},
            "spec.zone: is 'Zone_A'; must be small letters, digits and '-', "
            "with a letter or digit at both ends",
        ),
        ({"prefill": []}, "spec.prefill: is []; must be an object"),
        ({"attachableCaches": {}}, "spec.attachableCaches: is {}; must be a list"),
        (
            {"attachableCaches": [{"name": "a"}] * 9},
            "spec.attachableCaches: has 9; must have at most 8 entries",
        ),
        (
            {"model": {"demo": "smollm2", "servedName": ""}},
            "spec.model.servedName: has 0; must have at least 1 character",
        ),
        (
            {"prefill": {"resources": {"limits": {"memory": "4 GB"}}}},
            "spec.prefill.resources.limits.memory: is '4 GB'; must be a quantity, "
            "such as 500m, 2 or 16Gi",
        ),
        (
            {"prefill": {"resources": {"limits": {"cpu": 0.5}}}},
            "spec.prefill.resources.limits.cpu: is 0.5; must be a whole number, "
            "or text such as 500m or 16Gi",
        ),
        ({"canary": None}, "spec.canary: is null; must be an object"),
        (
            {"model": {"claim": {"claim": "m", "path": "../etc"}}},
            "spec.model.claim.path: is '../etc'; must be a path without '..' "
            "that does not begin with '/', or empty",
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_is_wrong_and_what_would_be_right(
    spec: dict[str, Any], said: str
) -> None:
    assert said in problems(**spec)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = problems(prefil={}, zone=3, router={"port": 0})
    assert [one.partition(":")[0] for one in found] == [
        "spec.router.port",
        "spec.zone",
        "spec.prefil",
    ]


def test_all_broken_rules_are_said_at_once() -> None:
    found = problems(
        engine="sglang", rollout={"maxSurge": 0}, offload={"enabled": False, "tailObjects": True}
    )
    assert {one.partition(":")[0] for one in found} >= {
        "spec.model.demo",
        "spec.rollout.maxSurge",
        "spec.offload.tailObjects",
    }


def test_long_values_are_cut() -> None:
    (said,) = problems(decode={"replicas": "3" * 500})
    assert len(said) < 150
    assert "…" in said


def test_a_bare_on_is_told_apart_from_the_arm() -> None:
    manifest = {"metadata": METADATA, "spec": {"target": {"url": "http://a"}, "arms": [True]}}
    with pytest.raises(InvalidResource, match=r"spec\.arms\[0\]: is true; must be 'on'.*quote it"):
        parse_benchmark(manifest)


def test_another_kind_or_version_is_refused() -> None:
    with pytest.raises(InvalidResource, match="kind: is 'SharedCache'; must be PDCluster"):
        parse_pd_cluster({**cluster(), "kind": "SharedCache"})
    with pytest.raises(InvalidResource, match="apiVersion: is 'v1'; must be kvloop"):
        parse_pd_cluster({**cluster(), "apiVersion": "v1"})


def test_a_resource_without_a_spec_says_so() -> None:
    with pytest.raises(InvalidResource, match="spec: is missing; it is needed"):
        parse_shared_cache({"metadata": METADATA})


def test_whole_numbers_are_quantities() -> None:
    parsed = parse_pd_cluster(cluster(prefill={"resources": {"limits": {"cpu": 2}}}))
    assert parsed.spec.prefill.resources.limits == {"cpu": "2"}


@pytest.mark.parametrize("path", ["/a/../b", "a", "/..", ""])
def test_host_paths_are_absolute_and_stay_where_they_are(path: str) -> None:
    spec = {"backend": "file", "file": {"volume": {"hostPath": path}}}
    with pytest.raises(InvalidResource, match=r"a path without '\.\.' that begins with '/'"):
        parse_shared_cache({"metadata": METADATA, "spec": spec})


@pytest.mark.parametrize("path", ["..", "a/../b", "/a", "a//b", "."])
def test_directories_of_a_store_stay_under_its_volume(path: str) -> None:
    spec = {"backend": "file", "file": {"volume": {"hostPath": "/a"}, "directory": path}}
    with pytest.raises(InvalidResource, match=r"spec\.file\.directory"):
        parse_shared_cache({"metadata": METADATA, "spec": spec})


@pytest.mark.parametrize("path", [".cache/models", "a/b.c", "snapshots/1_2-3"])
def test_usual_directories_are_taken(path: str) -> None:
    spec = {"backend": "file", "file": {"volume": {"hostPath": "/a"}, "directory": path}}
    parsed = parse_shared_cache({"metadata": METADATA, "spec": spec})
    assert parsed.spec.file is not None
    assert parsed.spec.file.directory == path

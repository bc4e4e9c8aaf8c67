from __future__ import annotations

import base64
import json
from typing import Any

import kubernetes_validate
import pytest
from pd_clusters import KEYS, built, cluster, container_of, file_connection, flag, pod_of

from kvloop.operator.build.pd_cluster import Keys, build_keys_secret
from kvloop.operator.build.pd_cluster.model import served_name
from kvloop.operator.names import REVISION

ROLES = ("prefill", "decode", "router")
FULL: dict[str, Any] = {
    "model": {"huggingFace": {"id": "a/b", "tokenSecret": {"name": "t", "key": "k"}}},
    "sharedCacheRef": {"name": "a"},
    "attachableCaches": [{"name": "a"}, {"name": "b"}],
    "router": {"apiKeysSecret": {"name": "u", "key": "k"}},
    "decode": {"gpus": 1, "env": [{"name": "A", "value": "b"}]},
}
CACHES = [file_connection("a"), file_connection("b")]


def attached(manifests: Any) -> Any:
    secret = manifests["Secret/demo-attach"]["data"]["attach.json"]
    return json.loads(base64.b64decode(secret))


@pytest.mark.parametrize("version", ["1.27", "1.37"])
@pytest.mark.parametrize("spec", [{}, FULL])
def test_manifests_are_what_kubernetes_knows(spec: dict[str, Any], version: str) -> None:
    wanted = cluster(**spec)
    manifests = [*built(wanted, CACHES).values(), build_keys_secret(wanted, KEYS)]
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("role", ROLES)
def test_flags_are_those_of_the_command(role: str) -> None:
    from kvloop.cli.main import build_parser

    box = container_of(built(cluster(**FULL), CACHES), role)
    words = [*box["command"], *box["args"]]
    if role == "router":
        words = ["" if word.startswith("/var/lib") else word for word in words]
    parsed = build_parser().parse_args(words[1:])
    assert parsed.port in (30000, 8000)


@pytest.mark.parametrize("role", ROLES)
def test_pods_are_restricted(role: str) -> None:
    pod, box = pod_of(built(cluster()), role)["spec"], container_of(built(cluster()), role)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert box["securityContext"]["readOnlyRootFilesystem"] is True
    assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not [v for v in pod["volumes"] if "hostPath" in v]
    assert "hostNetwork" not in pod


def test_everything_belongs_to_the_cluster() -> None:
    wanted = cluster()
    for manifest in [*built(wanted).values(), build_keys_secret(wanted, KEYS)]:
        owner = manifest["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("PDCluster", "demo", "u1")
        assert manifest["metadata"]["namespace"] == "ns"


def test_both_roles_have_one_generation_and_the_router_none() -> None:
    manifests = built(cluster())
    labels = {role: pod_of(manifests, role)["metadata"]["labels"].get(REVISION) for role in ROLES}
    assert labels["prefill"] == labels["decode"]
    assert labels["prefill"] == flag(container_of(manifests, "prefill"), "generation")
    assert labels["router"] is None


def test_nodes_wait_for_their_peer_and_the_router_does_not() -> None:
    manifests = built(cluster())
    gates = [pod_of(manifests, role)["spec"].get("readinessGates") for role in ROLES]
    assert gates == [[{"conditionType": "kvloop.dev/paired"}]] * 2 + [None]


def test_nodes_tell_every_router_also_one_that_is_not_ready() -> None:
    manifests = built(cluster())
    peers = manifests["Service/demo-router-peers"]["spec"]
    assert peers["clusterIP"] == "None" and peers["publishNotReadyAddresses"] is True
    url = flag(container_of(manifests, "decode"), "router")
    assert url == "http://demo-router-peers.ns.svc:8000"


def test_pods_mount_all_attachable_caches_and_attach_the_chosen_one() -> None:
    spec = {"attachableCaches": [{"name": "a"}, {"name": "b"}]}
    templates = []
    for chosen in ("a", "b"):
        manifests = built(cluster(sharedCacheRef={"name": chosen}, **spec), CACHES)
        body = attached(manifests)
        assert body["hicache_storage_backend"] == "file"
        assert body["hicache_storage_backend_extra_config_json"]["root"].endswith(
            f"{chosen}/kvloop"
        )
        templates.append([pod_of(manifests, role) for role in ROLES])
    detached = built(cluster(**spec), CACHES)
    assert attached(detached) == {}
    templates.append([pod_of(detached, role) for role in ROLES])
    assert templates[0] == templates[1] == templates[2]


def test_other_keys_replace_the_pods() -> None:
    other = Keys(admin_key="hushed", node_secret=KEYS.node_secret)
    before, after = built(cluster()), built(cluster(), keys=other)
    for role in ROLES:
        assert pod_of(before, role) != pod_of(after, role)
    assert "hushed" not in json.dumps(after)


def test_the_router_loads_the_tokenizer_only() -> None:
    init = pod_of(built(cluster(**FULL), CACHES), "router")["spec"]["initContainers"][0]
    assert "*.json" in init["args"] and "*.safetensors" not in " ".join(init["args"])


def test_a_users_container_is_merged_by_name() -> None:
    spec = {"containers": [{"name": "prefill", "tty": True}, {"name": "more", "image": "x"}]}
    pod = pod_of(built(cluster(prefill={"podTemplate": {"spec": spec}})), "prefill")["spec"]
    assert [box["name"] for box in pod["containers"]] == ["prefill", "more"]
    assert pod["containers"][0]["tty"] is True and pod["containers"][0]["args"]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({"demo": "smollm2"}, "smollm2"),
        ({"huggingFace": {"id": "a/b"}}, "a/b"),
        ({"claim": {"claim": "c", "path": "x/y"}}, "y"),
        ({"claim": {"claim": "c"}}, "c"),
        ({"image": {"reference": "host:5000/team/model:v1@sha256:00"}}, "model"),
        ({"image": {"reference": "model"}}, "model"),
    ],
)
def test_a_model_is_named_after_its_source(model: dict[str, Any], name: str) -> None:
    assert served_name(cluster(model=model).spec.model) == name

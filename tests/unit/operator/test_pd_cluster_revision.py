from __future__ import annotations

from typing import Any

import pytest
from pd_clusters import KEYS, SETTINGS, cluster, file_connection

from kvloop.operator.build.pd_cluster import Context, Keys, context_of
from kvloop.operator.revision import release_tag

CACHES = {name: file_connection(name) for name in ("a", "b", "c")}
BOTH = {"attachableCaches": [{"name": "a"}, {"name": "b"}]}
BASE: dict[str, Any] = {**BOTH, "sharedCacheRef": {"name": "a"}}


def context(keys: Keys = KEYS, **spec: Any) -> Context:
    return context_of(cluster(**{**BASE, **spec}), CACHES, keys, SETTINGS)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"huggingFace": {"id": "a/b"}}},
        {"model": {"demo": "smollm2", "dtype": "float32"}},
        {"hicache": {"pageSize": 16}},
        {"hicache": {"codec": "int8"}},
        {"releaseTag": "2"},
    ],
)
def test_what_makes_pages_other_ones_begins_with_an_empty_cache(change: dict[str, Any]) -> None:
    assert context(**change).release_tag != context().release_tag
    assert context(**change).generation != context().generation


@pytest.mark.parametrize(
    "change",
    [
        {"attachableCaches": [{"name": "a"}, {"name": "b"}, {"name": "c"}]},
        {"image": {"reference": "other:1"}},
        {"hicache": {"memLayout": "layer_first"}},
        {"offload": {"tailObjects": True}},
        {"prefill": {"extraArgs": ["--seed", "1"]}},
        {"decode": {"env": [{"name": "A", "value": "b"}]}},
        {"podTemplate": {"spec": {"runtimeClassName": "kata"}}},
        {"keys": Keys(admin_key="other", node_secret="secret")},
    ],
)
def test_what_may_keep_nodes_apart_is_a_new_generation_over_the_same_pages(
    change: dict[str, Any],
) -> None:
    assert context(**change).generation != context().generation
    assert context(**change).release_tag == context().release_tag


@pytest.mark.parametrize(
    "change",
    [
        {"prefill": {"replicas": 5}},
        {"decode": {"replicas": 0, "resources": {"limits": {"memory": "3Gi"}}}},
        {"sharedCacheRef": {"name": "b"}},
        {"router": {"maxQueued": 3, "env": [{"name": "A", "value": "b"}]}},
        {"canary": {"enabled": False}},
        {"decode": {"maxTotalTokens": 1024, "drainSeconds": 1}},
        {"hicache": {"ratio": 9.0}},
    ],
)
def test_what_one_role_has_for_itself_keeps_the_generation(change: dict[str, Any]) -> None:
    assert context(**change).generation == context().generation
    assert context(**change).release_tag == context().release_tag


def test_an_image_of_sglang_whose_pages_name_no_format_begins_with_an_empty_cache() -> None:
    model = {"huggingFace": {"id": "a/b"}}
    first, second = (
        release_tag(cluster(model=model, engine="sglang", sglang={"image": image}).spec)
        for image in ("x:1", "x:2")
    )
    assert first != second

"""Whether an object is already as it was wanted."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from kvloop.operator.runtime.applied import (
    APPLIED,
    belongs_to_another,
    covers,
    digest_of,
    stamped,
)


def deployment() -> dict[str, Any]:
    """As builders make one."""
    containers = [
        {"name": "main", "image": "i:1", "env": [{"name": "A", "value": "1"}], "args": ["x", "y"]}
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "annotations": {"ours": "1"}},
        "spec": {"replicas": 2, "template": {"spec": {"containers": containers, "volumes": []}}},
    }


def live() -> dict[str, Any]:
    """As the API server keeps it."""
    made = deployment()
    made["metadata"] |= {"uid": "u", "resourceVersion": "7", "labels": {"theirs": "kept"}}
    pod = made["spec"]["template"]["spec"]
    pod["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    pod["containers"].append({"name": "injected", "image": "theirs"})
    del pod["volumes"]
    return made


def test_what_the_api_server_and_others_added_is_no_difference() -> None:
    assert covers(live(), deployment())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicas"), 3),
        (("metadata", "annotations", "ours"), "2"),
        (("spec", "template", "spec", "containers", 0, "image"), "i:2"),
        (("spec", "template", "spec", "containers", 0, "env", 0, "value"), "2"),
        (("spec", "template", "spec", "containers", 0, "args"), ["x"]),
        (("spec", "template", "spec", "containers", 0, "args"), ["y", "x"]),
        (("spec", "template", "spec", "containers"), "none"),
    ],
)
def test_a_field_that_another_changed_is_a_difference(path: tuple[Any, ...], value: Any) -> None:
    changed: Any = live()
    place = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    assert not covers(changed, deployment())


def test_a_field_that_another_removed_is_a_difference() -> None:
    changed = live()
    del changed["spec"]["template"]["spec"]["containers"][0]["env"]
    assert not covers(changed, deployment())


def test_named_items_may_come_in_any_order() -> None:
    changed = live()
    changed["spec"]["template"]["spec"]["containers"].reverse()
    assert covers(changed, deployment())


def test_equal_manifests_have_equal_digests_whatever_the_order_of_fields() -> None:
    turned = dict(reversed(deployment().items()))
    assert digest_of(stamped(turned)) == digest_of(stamped(deployment()))


def test_a_field_that_is_left_out_changes_the_digest() -> None:
    less = deployment()
    del less["spec"]["replicas"]
    assert digest_of(stamped(less)) != digest_of(stamped(deployment()))


def test_the_guarding_version_is_no_part_of_the_digest() -> None:
    guarded = deployment()
    guarded["metadata"]["resourceVersion"] = "7"
    made = stamped(guarded)
    assert digest_of(made) == digest_of(stamped(deployment()))
    assert made["metadata"]["resourceVersion"] == "7"


def test_a_stamped_manifest_is_stamped_alike_and_the_given_one_is_left_as_it_was() -> None:
    given = deployment()
    before = deepcopy(given)
    made = stamped(given)
    assert given == before
    assert stamped(made) == made
    assert made["metadata"]["annotations"] == {"ours": "1", APPLIED: digest_of(made)}


def test_nobody_applied_what_has_no_digest() -> None:
    assert digest_of(live()) is None


def test_an_object_of_another_owner_is_not_ours() -> None:
    mine = {"metadata": {"ownerReferences": [{"uid": "1"}]}}
    assert belongs_to_another({"metadata": {}}, mine)
    assert belongs_to_another({"metadata": {"ownerReferences": [{"uid": "2"}]}}, mine)
    assert not belongs_to_another(mine, mine)
    assert not belongs_to_another({"metadata": {}}, {"metadata": {}})

"""values.yaml, its schema and the templates say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
from chart import CHART, defaults, rendered

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = "\n".join(
    path.read_text() for path in sorted((CHART / "templates").rglob("*")) if path.is_file()
)
WHOLE = {"operator.resources"}
"""Handed on as they are."""
LINES = (CHART / "values.yaml").read_text().splitlines()


def schema_at(path: str) -> dict[str, Any] | None:
    """What the schema says of a value."""
    found: Any = SCHEMA
    for key in path.split("."):
        found = (found or {}).get("properties", {}).get(key)
    return found  # type: ignore[no-any-return]


def values(at: dict[str, Any] | None = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, default) of each value that the schema does not leave open."""
    for key, value in (defaults() if at is None else at).items():
        here = f"{path}{key}"
        is_group = here not in WHOLE and "properties" in (schema_at(here) or {})
        if isinstance(value, dict) and is_group:
            yield from values(value, f"{here}.")
        else:
            yield here, value


PATHS = dict(values())


@pytest.mark.parametrize("path", PATHS)
def test_every_value_is_in_the_schema_and_described(path: str) -> None:
    found = schema_at(path)
    assert found is not None and found.get("description")


@pytest.mark.parametrize("path", PATHS)
def test_every_value_is_used_in_a_template(path: str) -> None:
    if re.search(rf"\.Values\.{re.escape(path)}\b", TEMPLATES):
        return
    above, _, key = path.rpartition(".")
    # One that a template takes from a group that it was handed.
    assert re.search(rf"\.Values\.{re.escape(above)}\b", TEMPLATES)
    assert re.search(rf"\.{key}\b", TEMPLATES)


def test_every_group_of_the_schema_refuses_what_it_does_not_know() -> None:
    open_groups = [path for path, group in groups(SCHEMA) if group["additionalProperties"]]
    assert open_groups == []


def groups(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects with named fields."""
    if "properties" in schema and schema.get("type") == "object":
        if path != "operator.env[]":  # a container's own
            yield path, {"additionalProperties": True} | schema
        for key, below in schema["properties"].items():
            yield from groups(below, f"{path}.{key}" if path else key)
    if isinstance(schema.get("items"), dict):
        yield from groups(schema["items"], f"{path}[]")


def test_the_schema_knows_no_value_that_is_not_there() -> None:
    known = {
        f"{path}.{key}".removeprefix(".")
        for path, group in groups(SCHEMA)
        for key, below in group["properties"].items()
        if "properties" not in below and "[]" not in path and path not in WHOLE
    }
    assert known - set(PATHS) == {"global"}


def test_every_value_has_a_comment_above_it() -> None:
    bare = []
    for index, line in enumerate(LINES):
        key = re.fullmatch(r"( *)(\w+):(.*)", line)
        if key is None or ".".join(_path(index)) not in PATHS:
            continue
        if not LINES[index - 1].lstrip().startswith("#"):
            bare.append(".".join(_path(index)))
    assert bare == []


def _path(index: int) -> list[str]:
    """Of the key on a line of values.yaml."""
    path: list[str] = []
    depth = 1_000
    for line in reversed(LINES[: index + 1]):
        key = re.match(r"( *)(\w+):", line)
        if key is not None and len(key[1]) < depth:
            depth = len(key[1])
            path.insert(0, key[2])
    return path


WRONG = [
    ({"oprator": {}}, "'oprator' not allowed"),
    ({"crds": {"kept": True}}, "'kept' not allowed"),
    ({"operator": {"replica": 2}}, "'replica' not allowed"),
    ({"operator": {"replicas": "two"}}, "/operator/replicas"),
    ({"operator": {"namespaces": ["Chat"]}}, "/operator/namespaces/0"),
    ({"operator": {"namespaces": "chat"}}, "/operator/namespaces"),
    ({"operator": {"port": 80}}, "/operator/port"),
    ({"operator": {"logLevel": "loud"}}, "/operator/logLevel"),
    ({"image": {"operator": {"digest": "abc"}}}, "/image/operator/digest"),
    ({"image": {"node": {"repository": ""}}}, "/image/node/repository"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"podDisruptionBudget": {"maxUnavailable": 0}}, "/podDisruptionBudget/maxUnavailable"),
    ({"metrics": {"podMonitor": {"interval": "often"}}}, "/metrics/podMonitor/interval"),
    ({"networkPolicy": {"operator": {"apiServerPorts": []}}}, "/networkPolicy/operator"),
    ({"priorityClass": {"value": 2_000_000_000}}, "/priorityClass/value"),
]


@pytest.mark.parametrize(("wrong", "told"), WRONG, ids=[told for _, told in WRONG])
def test_a_misspelt_or_impossible_value_is_refused_by_name(
    wrong: dict[str, Any], told: str
) -> None:
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmValuesError) as said:
        chart.validate_schema(wrong)
    assert told in str(said.value)


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"serviceAccount": {"create": False}}, "serviceAccount.name is needed"),
    ({"metrics": {"service": {"enabled": False}}}, "test.enabled needs metrics.service.enabled"),
    (
        {"networkPolicy": {"clusters": {"enabled": True}}},
        "networkPolicy.clusters.namespaces is empty",
    ),
]


@pytest.mark.parametrize(("values", "told"), CONTRADICTIONS, ids=[t for _, t in CONTRADICTIONS])
def test_values_that_contradict_each_other_are_refused_in_words(
    values: dict[str, Any], told: str
) -> None:
    with pytest.raises(helm_python.HelmRenderError) as said:
        rendered(values)
    assert told in str(said.value)

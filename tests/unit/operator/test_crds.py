"""The CRDs say what the types say, in words that every API server understands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chart import LOADER
from kubernetes_versions import VERSIONS

from kvloop.operator.crds.__main__ import main
from kvloop.operator.crds.definition import definition
from kvloop.operator.crds.files import FOLDER, contents
from kvloop.operator.crds.kinds import BENCHMARK, KINDS, PD_CLUSTER, SHARED_CACHE, Kind
from kvloop.operator.crds.parts import parts
from kvloop.operator.crds.reference import BEGIN, END
from kvloop.operator.types.base import Model

Schema = dict[str, Any]
EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.short)


def whole(kind: Kind) -> Schema:
    schema: Schema = version(kind)["schema"]["openAPIV3Schema"]
    return schema


def version(kind: Kind) -> dict[str, Any]:
    return version_of(kind.short)


@cache
def version_of(short: str) -> dict[str, Any]:
    """Made once: it takes a while, and most tests look at it."""
    (kind,) = (kind for kind in KINDS if kind.short == short)
    (only,) = definition(kind)["spec"]["versions"]
    return dict(only)


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema in it, by its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from nodes(schema[name], f"{path}[]")


def at(kind: Kind, path: str) -> Schema:
    return next(schema for found, schema in nodes(whole(kind)) if found == path)


def test_the_files_of_the_chart_are_what_the_types_say() -> None:
    assert main(["--check"]) == 0


def test_a_file_that_differs_or_is_too_many_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Fields\n\n{BEGIN}\n{END}\n")
    where = ["--output", str(tmp_path), "--page", str(page)]
    assert main(where) == 0
    assert main(["--check", *where]) == 0
    (tmp_path / "pdclusters.yaml").write_text("{}")
    (tmp_path / "others.yaml").write_text("{}")
    page.write_text(page.read_text().replace("pageSize", "pageSizes"))
    assert main(["--check", *where]) == 1
    said = capsys.readouterr().out
    assert re.findall(r"(\S+) is not what", said) == ["others.yaml", "pdclusters.yaml", "page.md"]


@EVERY_KIND
@pytest.mark.parametrize("kubernetes", VERSIONS)
def test_it_is_a_valid_definition(kind: Kind, kubernetes: str) -> None:
    kubernetes_validate.validate(definition(kind), kubernetes, strict=True)


@EVERY_KIND
def test_every_field_is_described(kind: Kind) -> None:
    bare = [
        path
        for path, schema in nodes(whole(kind))
        if not path.endswith("[]") and path != ".metadata" and not schema.get("description")
    ]
    assert bare == []


@EVERY_KIND
def test_the_schema_is_structural(kind: Kind) -> None:
    for path, schema in nodes(whole(kind)):
        assert not {"$ref", "$defs", "const", "oneOf", "allOf", "title", "nullable"} & set(
            schema
        ), path
        assert not ("properties" in schema and "additionalProperties" in schema), path
        if "x-kubernetes-int-or-string" in schema:
            assert "type" not in schema
            assert schema["anyOf"] == [{"type": "integer"}, {"type": "string"}]
        else:
            assert schema["type"] in ("object", "array", "string", "integer", "number", "boolean")
            assert "anyOf" not in schema, path
        assert isinstance(schema.get("exclusiveMinimum", True), bool), path


@EVERY_KIND
def test_what_rules_look_at_is_bounded(kind: Kind) -> None:
    """API servers refuse rules whose cost they cannot bound."""
    for path, schema in nodes(whole(kind)["properties"]["spec"]):
        if schema.get("type") == "array":
            assert "maxItems" in schema, path
        if schema.get("type") == "string":
            assert "maxLength" in schema or "enum" in schema, path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path


def test_parts_default_to_nothing_so_that_the_api_server_fills_them() -> None:
    assert at(PD_CLUSTER, ".spec.prefill")["default"] == {}
    assert at(PD_CLUSTER, ".spec.prefill.resources.limits")["default"] == {}
    assert at(PD_CLUSTER, ".spec.hicache.pageSize")["default"] == 64


def test_empty_texts_are_no_defaults() -> None:
    """Kubernetes 1.20 takes them for null and refuses the definition."""
    for kind in KINDS:
        assert all(schema.get("default") != "" for _, schema in nodes(whole(kind)))


def test_a_status_has_no_defaults() -> None:
    for kind in KINDS:
        assert all(
            "default" not in schema for _, schema in nodes(whole(kind)["properties"]["status"])
        )


def test_enums_ranges_and_patterns_reach_the_schema() -> None:
    assert at(SHARED_CACHE, ".spec.backend")["enum"][0] == "mooncake"
    assert at(PD_CLUSTER, ".spec.hicache.pageSize")["enum"] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    port = at(PD_CLUSTER, ".spec.router.port")
    assert (port["minimum"], port["maximum"]) == (1, 65535)
    ratio = at(PD_CLUSTER, ".spec.hicache.ratio")
    assert (ratio["minimum"], ratio["exclusiveMinimum"]) == (0, True)
    quantity = at(PD_CLUSTER, ".spec.prefill.resources.limits[]")
    assert quantity["pattern"].startswith("^[0-9]+")
    assert at(BENCHMARK, ".spec.target.url")["pattern"].startswith("^https?://")


def test_objects_that_are_handed_on_keep_unknown_fields() -> None:
    for path in (".spec.podTemplate.spec", ".spec.prefill.affinity", ".spec.prefill.env[]"):
        schema = at(PD_CLUSTER, path)
        assert schema["x-kubernetes-preserve-unknown-fields"] is True
        assert "additionalProperties" not in schema


@EVERY_KIND
def test_conditions_are_a_map_by_type(kind: Kind) -> None:
    conditions = at(kind, ".status.conditions")
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert "type" in conditions["items"]["required"]
    assert conditions["items"]["properties"]["status"]["enum"] == ["True", "False", "Unknown"]


@EVERY_KIND
def test_every_rule_of_the_types_is_in_the_schema(kind: Kind) -> None:
    models = [kind.resource, *parts(kind.spec).values()]
    wanted = {
        (rule.cel, rule.message)
        for model in models
        if issubclass(model, Model)
        for rule in model.RULES
        if rule.cel
    }
    found = {
        (rule["rule"], rule["message"])
        for _, schema in nodes(whole(kind))
        for rule in schema.get("x-kubernetes-validations", [])
    }
    assert found == wanted


def test_a_chart_can_leave_rules_out_by_line() -> None:
    """Helm and kubectl refuse to send what an API server older than 1.25 does not know."""
    for name, text in contents().items():
        assert (FOLDER / name).read_text() == text
        kept = re.sub(r"(?m)^ *x-kubernetes-validations:.*\n", "", text)
        assert "x-kubernetes-validations" not in kept
        without = yaml.load(kept, LOADER)
        plain = yaml.load(text, LOADER)
        assert without["spec"]["names"] == plain["spec"]["names"]
        schemas = [
            one["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for one in (plain, without)
        ]
        for _, schema in nodes(schemas[0]):
            schema.pop("x-kubernetes-validations", None)
        assert schemas[0] == schemas[1]


def test_names_are_those_that_users_type() -> None:
    names = {kind.name: definition(kind)["spec"]["names"] for kind in KINDS}
    assert {name: found["shortNames"] for name, found in names.items()} == {
        "SharedCache": ["shc"],
        "PDCluster": ["pdc"],
        "MultiTurnBenchmark": ["mtb"],
    }
    assert all(found["categories"] == ["kvloop", "all"] for found in names.values())
    assert names["MultiTurnBenchmark"]["plural"] == "multiturnbenchmarks"
    assert names["MultiTurnBenchmark"]["singular"] == "multiturnbenchmark"


def test_columns_are_those_that_tell_the_state() -> None:
    columns = {
        kind.short: [column.name for column in kind.columns if not column.wide] for kind in KINDS
    }
    assert columns == {
        "shc": ["Backend", "Ready", "Reason", "Used", "Capacity", "Age"],
        "pdc": ["Ready", "Reason", "Reuse", "Hit", "Prefill", "Decode", "Age"],
        "mtb": ["Phase", "Reason", "TTFT", "TTFT (no reuse)", "Speedup", "Hit", "Age"],
    }


@EVERY_KIND
def test_columns_show_fields_that_exist(kind: Kind) -> None:
    paths = {path for path, _ in nodes(whole(kind))} | {".metadata.creationTimestamp"}
    for column in kind.columns:
        path = re.sub(r'\[\?\(@\.type=="Ready"\)\]', "[]", column.path)
        assert path in paths, column
        if column.type == "integer":
            assert at(kind, path)["type"] == "integer"


def test_a_reason_column_reads_the_ready_condition() -> None:
    columns = {column["name"]: column for column in version(PD_CLUSTER)["additionalPrinterColumns"]}
    assert columns["Reason"]["jsonPath"] == '.status.conditions[?(@.type=="Ready")].reason'
    assert "priority" not in columns["Reason"]
    assert columns["Message"]["priority"] == 1


def test_scale_reads_and_writes_fields_that_exist() -> None:
    for kind in (SHARED_CACHE, PD_CLUSTER):
        scale = version(kind)["subresources"]["scale"]
        for path in (scale["specReplicasPath"], scale["statusReplicasPath"]):
            assert at(kind, path)["type"] == "integer"
        assert at(kind, scale["labelSelectorPath"])["type"] == "string"
    assert (
        version(PD_CLUSTER)["subresources"]["scale"]["specReplicasPath"] == ".spec.decode.replicas"
    )
    assert "scale" not in version(BENCHMARK)["subresources"]
    assert all(version(kind)["subresources"]["status"] == {} for kind in KINDS)

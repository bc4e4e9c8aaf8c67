"""Every resource of the chart's examples is one that the operator and the API server take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kvloop.operator.crds.definition import definition
from kvloop.operator.crds.kinds import KINDS
from kvloop.operator.parse import parse_benchmark, parse_pd_cluster, parse_shared_cache

EXAMPLES = Path(__file__).parents[3] / "charts" / "kvloop" / "examples"
PARSE = {
    "SharedCache": parse_shared_cache,
    "PDCluster": parse_pd_cluster,
    "MultiTurnBenchmark": parse_benchmark,
}


def resources() -> Iterator[Any]:
    for file in sorted(EXAMPLES.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document and document["kind"] in PARSE:
                name = f"{file.name}: {document['kind']} {document['metadata']['name']}"
                yield pytest.param(document, id=name)


EVERY_RESOURCE = pytest.mark.parametrize("resource", list(resources()))


def test_all_kinds_have_examples() -> None:
    kinds = {param.values[0]["kind"] for param in resources()}
    assert kinds == set(PARSE)


@EVERY_RESOURCE
def test_an_example_parses(resource: dict[str, Any]) -> None:
    metadata = {"namespace": "default", **resource["metadata"]}
    PARSE[resource["kind"]]({**resource, "metadata": metadata})


@EVERY_RESOURCE
def test_an_example_fits_the_schema(resource: dict[str, Any]) -> None:
    (kind,) = [kind for kind in KINDS if kind.name == resource["kind"]]
    (version,) = definition(kind)["spec"]["versions"]
    jsonschema.Draft4Validator(_closed(version["schema"]["openAPIV3Schema"])).validate(resource)


def _closed(schema: Any) -> Any:
    """Fields that no schema names are refused, as kubectl does."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(inner) for name, inner in schema.items()}
    if "properties" in schema and isinstance(schema.get("type"), str):
        closed["additionalProperties"] = False
    return closed

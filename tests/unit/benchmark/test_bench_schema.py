"""The committed schema is that of the report."""

from pathlib import Path

import msgspec
import pytest
from bench_reports import make_report

from kvloop.benchmark.results.document import SCHEMA
from kvloop.benchmark.results.schema import json_schema, render_schema

COMMITTED = Path(__file__).parents[3] / "docs" / "benchmarks" / "schema.json"


def test_the_committed_schema_is_up_to_date() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == render_schema(), (
        "run scripts/write_bench_schema.py"
    )


def test_fields_are_explained_by_their_docstrings() -> None:
    definitions = json_schema()["$defs"]
    assert "not sent" not in definitions["Counts"]["properties"]["planned"].get("description", "")
    assert definitions["Claim"]["properties"]["value"]["description"].startswith("arm / control")
    assert definitions["Sample"]["properties"]["queued_s"]["description"].startswith("Wait for")


def test_the_schema_names_the_version_that_reports_carry() -> None:
    schema = json_schema()
    assert SCHEMA in schema["$id"]
    assert schema["$defs"]["Report"]["properties"]["schema"]["default"] == SCHEMA


@pytest.mark.parametrize("name", ["arms", "claims", "savings", "samples", "failures", "driver"])
def test_what_a_report_has_is_in_the_schema(name: str) -> None:
    built = msgspec.to_builtins(make_report(conversations=5, rounds=1, fail_share=0.05))
    definitions = json_schema()["$defs"]
    assert name in built and name in definitions["Report"]["properties"]
    kinds = {"arms": "ArmResult", "claims": "Claim", "samples": "Sample", "failures": "Failure"}
    kinds |= {"savings": "Savings", "driver": "DriverCost"}
    found = built[name] if isinstance(built[name], dict) else built[name][0]
    assert found.keys() == definitions[kinds[name]]["properties"].keys()

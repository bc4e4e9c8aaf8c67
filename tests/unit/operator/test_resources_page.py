"""docs/resources.md tells every field, every rule and the ten invalid resources as they are."""

from __future__ import annotations

import pytest
from ten_invalid import TEN, Invalid

from kvloop.operator.crds.files import PAGE
from kvloop.operator.crds.kinds import KINDS
from kvloop.operator.crds.parts import parts
from kvloop.operator.crds.reference import fields
from kvloop.operator.types.base import Model

TEXT = PAGE.read_text()


def in_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("invalid", TEN, ids=lambda one: one.name)
def test_an_invalid_resource_is_shown_with_its_words(invalid: Invalid) -> None:
    page = in_one_line(TEXT)
    assert in_one_line(invalid.spec) in page
    assert in_one_line(invalid.said) in page


def test_every_field_of_every_part_is_told() -> None:
    sections = {section.partition("\n")[0]: section for section in fields().split("\n### ")}
    for kind in KINDS:
        for name, model in parts(kind.spec).items():
            if name == kind.spec.__name__:
                continue
            own = sections[name]
            shared = [sections[base] for base in ("PodSettings", "Scheduling")]
            for field, about in model.model_fields.items():
                entry = f"- `{about.alias or field}` ("
                assert any(entry in text for text in (own, *shared)), (name, field)


def test_every_rule_is_told() -> None:
    told = in_one_line(fields())
    for kind in KINDS:
        for model in parts(kind.spec).values():
            rules = model.RULES if issubclass(model, Model) else ()
            assert all(in_one_line(rule.message) in told for rule in rules)


def test_defaults_ranges_and_needs_are_told() -> None:
    told = in_one_line(fields())
    assert "`pageSize` (`1` | `2` | `4` | `8` | `16`" in told
    assert "`backend` (`mooncake` | `hf3fs`" in told
    assert "`zones`, needed)" in told
    assert "`port` (integer from 1 to 65535, default `50051`)" in told
    assert "`ratio` (number above 0 to 1000, default `2.0`)" in told
    assert "`segmentSize` (quantity, default `4Gi`)" in told
    assert "(told by the operator, not by the API server)" in told


def test_lines_are_not_too_long() -> None:
    assert [line for line in TEXT.splitlines() if len(line) > 130] == []

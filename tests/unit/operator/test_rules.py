"""Every rule between fields: broken by an example, and the same in CEL and in Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import celpy
import pytest
from broken_resources import BROKEN, Broken
from celpy.adapter import json_to_cel
from examples import examples
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel
from schema_objects import defaulted, mentioned, objects

from kvloop.operator.crds.kinds import KINDS
from kvloop.operator.crds.parts import parts
from kvloop.operator.crds.schema import spec_schema
from kvloop.operator.errors import InvalidResource
from kvloop.operator.parse import parse_benchmark, parse_pd_cluster, parse_shared_cache
from kvloop.operator.rules import broken_rules
from kvloop.operator.types.base import Model, Resource, Rule

PARSE = {
    "SharedCache": parse_shared_cache,
    "PDCluster": parse_pd_cluster,
    "MultiTurnBenchmark": parse_benchmark,
}
ENVIRONMENT = celpy.Environment()


@cache
def compiled(cel: str) -> celpy.Runner:
    return ENVIRONMENT.program(ENVIRONMENT.compile(cel))


def models() -> Iterator[type[BaseModel]]:
    for kind in KINDS:
        yield kind.resource
        yield from parts(kind.spec).values()


def ruled() -> list[type[Model]]:
    """Models with rules, each once."""
    found = {m.__name__: m for m in models() if issubclass(m, Model) and m.RULES}
    return [found[name] for name in sorted(found)]


def is_about_a_change(rule: Rule) -> bool:
    return rule.cel is not None and "oldSelf" in rule.cel


def said_by_cel(rule: Rule, value: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> bool:
    assert rule.cel is not None
    program = compiled(rule.cel)
    names = {"self": json_to_cel(value)}
    if old is not None:
        names["oldSelf"] = json_to_cel(old)
    return bool(program.evaluate(names))


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: f"{b.field}: {b.message[:40]}")
def test_an_example_breaks_one_rule_and_is_told_its_field(broken: Broken) -> None:
    with pytest.raises(InvalidResource) as raised:
        PARSE[broken.kind](broken.manifest)
    (problem,) = raised.value.problems
    assert problem.field == broken.field
    assert problem.message.startswith(broken.message)
    assert str(raised.value) == f"{problem.field}: {problem.message}"


def test_every_rule_has_an_example_that_breaks_it() -> None:
    messages = {broken.message for broken in BROKEN}
    without = {
        rule.message
        for model in ruled()
        for rule in model.RULES
        if not is_about_a_change(rule) and not any(map(rule.message.startswith, messages))
    }
    assert without == set()


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: f"{b.field}: {b.message[:40]}")
def test_the_api_server_refuses_it_for_the_same_rule(broken: Broken) -> None:
    """By what it is told: the schema's defaults, then CEL, at every part of the object."""
    (kind,) = [kind for kind in KINDS if kind.name == broken.kind]
    spec = defaulted(spec_schema(kind.spec), broken.spec)
    refused = [
        rule.message
        for model, value in (
            (kind.resource, {**broken.manifest, "spec": spec}),
            *_places(kind.spec, spec),
        )
        for rule in model.RULES
        if rule.cel and not is_about_a_change(rule) and not said_by_cel(rule, value)
    ]
    rules = [rule for model in ruled() for rule in model.RULES]
    is_in_cel = any(rule.cel for rule in rules if rule.message.startswith(broken.message))
    assert len(refused) == (1 if is_in_cel else 0)
    assert all(message.startswith(broken.message) for message in refused)


def _places(model: type[Model], value: Any) -> Iterator[tuple[type[Model], Any]]:
    """The parts of an object with their models."""
    yield model, value
    for name, field in model.model_fields.items():
        inner = value.get(field.alias or name)
        for part in (found for found in _models_of(field.annotation)):
            for one in inner if isinstance(inner, list) else [inner]:
                if one is not None:
                    yield from _places(part, one)


def _models_of(kind: Any) -> Iterator[type[Model]]:
    if isinstance(kind, type) and issubclass(kind, Model):
        yield kind
    for argument in getattr(kind, "__args__", ()):
        yield from _models_of(argument)


PARTS = [model for model in ruled() if not issubclass(model, Resource)]


@pytest.mark.parametrize("model", PARTS, ids=lambda model: model.__name__)
def test_cel_and_python_agree_on_any_object(model: type[Model]) -> None:
    rules = [rule for rule in model.RULES if rule.cel and not is_about_a_change(rule)]
    schema = spec_schema(model)

    @settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
    @given(objects(schema, mentioned(rules)))
    def agree(value: dict[str, Any]) -> None:
        parsed = model.model_validate(value, strict=True)
        whole = defaulted(schema, value)
        for rule in rules:
            assert said_by_cel(rule, whole) == rule.check(parsed), rule.message

    agree()


@pytest.mark.parametrize(
    ("name", "is_right"),
    [
        ("demo", True),
        ("a", True),
        ("a" * 36, True),
        ("a" * 37, False),
        ("1a", False),
        ("a-", False),
        ("a.b", False),
        ("A", False),
    ],
)
def test_a_name_that_services_cannot_have_is_refused_alike(name: str, is_right: bool) -> None:
    resource = {
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"model": {"demo": "smollm2"}},
    }
    (rule,) = (kind.resource.RULES[0] for kind in KINDS if kind.short == "pdc")
    assert said_by_cel(rule, resource) is is_right
    if is_right:
        assert parse_pd_cluster(resource).metadata.name == name
    else:
        with pytest.raises(InvalidResource, match=r"metadata\.name must be 36"):
            parse_pd_cluster(resource)


def test_the_backend_of_a_cache_cannot_be_changed() -> None:
    (rule,) = [rule for model in ruled() for rule in model.RULES if is_about_a_change(rule)]
    assert said_by_cel(rule, {"backend": "file"}, {"backend": "file"})
    assert not said_by_cel(rule, {"backend": "file"}, {"backend": "mooncake"})


class Even(Model):
    """A part with a rule."""

    RULES = (Rule(cel=None, check=lambda e: e.of % 2 == 0, message="must be even", field="of"),)
    of: int


class Lists(Model):
    """A list of parts."""

    some_parts: list[Even]


def test_parts_in_a_list_are_told_by_their_place() -> None:
    parsed = Lists(some_parts=[Even(of=2), Even(of=3)])
    assert [str(problem) for problem in broken_rules(parsed)] == ["someParts[1].of: must be even"]

"""Resources from manifests, or everything that is wrong with them, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from kvloop.operator.errors import InvalidResource, Problem
from kvloop.operator.problems import in_words
from kvloop.operator.rules import broken_rules
from kvloop.operator.types.base import API_VERSION, Model
from kvloop.operator.types.benchmark import MultiTurnBenchmark
from kvloop.operator.types.pd_cluster import PDCluster
from kvloop.operator.types.shared_cache import SharedCache

__all__ = [
    "InvalidResource",
    "Problem",
    "parse_benchmark",
    "parse_pd_cluster",
    "parse_shared_cache",
]

_Resource = TypeVar("_Resource", bound=Model)


def parse_shared_cache(manifest: Mapping[str, Any]) -> SharedCache:
    """InvalidResource with all problems: of the schema, else of the rules between fields."""
    return _parse(SharedCache, manifest)


def parse_pd_cluster(manifest: Mapping[str, Any]) -> PDCluster:
    """As `parse_shared_cache`."""
    return _parse(PDCluster, manifest)


def parse_benchmark(manifest: Mapping[str, Any]) -> MultiTurnBenchmark:
    """As `parse_shared_cache`."""
    return _parse(MultiTurnBenchmark, manifest)


def _parse(model: type[_Resource], manifest: Mapping[str, Any]) -> _Resource:
    if foreign := _wrong_kind(model, manifest):
        raise InvalidResource(foreign)
    about = {key: manifest[key] for key in manifest if key not in ("apiVersion", "kind", "status")}
    about.setdefault("metadata", {})
    try:
        # strict: a text is no number, as for the API server
        resource = model.model_validate(about, strict=True)
    except ValidationError as error:
        raise InvalidResource(in_words(model, error)) from None
    if problems := list(broken_rules(resource)):
        raise InvalidResource(problems)
    return resource


def _wrong_kind(model: type[Model], manifest: Mapping[str, Any]) -> list[Problem]:
    wanted = {"apiVersion": API_VERSION, "kind": model.__name__}
    return [
        Problem(field=field, message=f"is {manifest.get(field)!r}; must be {value}")
        for field, value in wanted.items()
        if manifest.get(field, value) != value
    ]

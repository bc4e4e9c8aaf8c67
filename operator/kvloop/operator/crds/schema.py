"""Structural OpenAPI v3 schemas, as CRDs want them, from pydantic's.

No references, no null, no numeric exclusive bounds; unset is absence. Defaults of parts are `{}`,
so that the API server fills them from the parts' own defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from kvloop.operator.crds.parts import parts
from kvloop.operator.crds.rules import validations
from kvloop.operator.types.base import Model

Schema = dict[str, Any]

_KEPT = (
    "type",
    "description",
    "enum",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)
MAX_TEXT = 4096
"""Characters of a text that says no other bound."""
MAX_ENTRIES = 256
"""Items or entries of a list or map that says no other bound; bounds keep CEL's cost known."""


def spec_schema(model: type[Model]) -> Schema:
    """Of a spec: with defaults, bounds and rules."""
    return _Structural(model, with_defaults=True).schema()


def status_schema(model: type[BaseModel]) -> Schema:
    """Of a status: without defaults, as what is not observed is not there."""
    return _Structural(model, with_defaults=False).schema()


class _Structural:
    def __init__(self, model: type[BaseModel], *, with_defaults: bool) -> None:
        (self._top, self._schemas) = _pydantic_schemas(model)
        self._models = parts(model)
        self._with_defaults = with_defaults

    def schema(self) -> Schema:
        return self._convert({"$ref": self._top})

    def _convert(self, node: Mapping[str, Any]) -> Schema:
        node = _without_null(node)
        if "$ref" in node:
            return self._part(node)
        made = {key: node[key] for key in _KEPT if key in node}
        made |= self._bounds(node)
        if self._has_default(node):
            made["default"] = node["default"]
        if "x-kubernetes-int-or-string" in made:
            made.pop("type")
            made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        elif made.get("type") == "object":
            made |= self._members(node)
        elif made.get("type") == "array":
            made["items"] = self._convert(node["items"])
        return made

    def _part(self, node: Mapping[str, Any]) -> Schema:
        """A model in its place: the place's description, and a default without details."""
        name = node["$ref"].rsplit("/", 1)[-1]
        made = self._convert(self._schemas[name])
        if "description" in node:
            made["description"] = node["description"]
        if self._has_default(node):
            made["default"] = {}
        model = self._models[name]
        if issubclass(model, Model) and (found := validations(model)):
            made["x-kubernetes-validations"] = found
        return made

    def _has_default(self, node: Mapping[str, Any]) -> bool:
        """An empty text is left out: Kubernetes 1.20 takes that default for null."""
        return self._with_defaults and node.get("default") not in (None, "")

    def _members(self, node: Mapping[str, Any]) -> Schema:
        if "x-kubernetes-preserve-unknown-fields" in node:
            return {}
        if "properties" in node:
            found = node["properties"].items()
            return {"properties": {name: self._convert(value) for name, value in found}}
        return {
            "additionalProperties": self._convert(node["additionalProperties"]),
            "maxProperties": node.get("maxProperties", MAX_ENTRIES),
        }

    def _bounds(self, node: Mapping[str, Any]) -> Schema:
        made: Schema = {}
        for side, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if side in node:
                made |= {bound: node[side], side: True}
        if not self._with_defaults:
            return made
        if node.get("type") == "integer":
            made["format"] = "int64"
        if node.get("type") == "string" and "enum" not in node:
            made["maxLength"] = node.get("maxLength", MAX_TEXT)
        if node.get("type") == "array":
            made["maxItems"] = node.get("maxItems", MAX_ENTRIES)
        return made


def _without_null(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """`X | None` as X; a constant as an enum of one."""
    if "const" in node:
        return {**node, "enum": [node["const"]]}
    if "anyOf" not in node:
        return node
    (found,) = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
    kept = {key: value for key, value in node.items() if key != "anyOf"}
    return _without_null({**found, **kept})


def _pydantic_schemas(model: type[BaseModel]) -> tuple[str, dict[str, Schema]]:
    references, schemas = models_json_schema([(model, "validation")], by_alias=True)
    return references[(model, "validation")]["$ref"], schemas["$defs"]

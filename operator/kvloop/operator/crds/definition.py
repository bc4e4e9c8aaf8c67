"""One CustomResourceDefinition from one kind."""

from __future__ import annotations

import inspect
from typing import Any

from kvloop.operator.crds.kinds import Column, Kind
from kvloop.operator.crds.rules import validations
from kvloop.operator.crds.schema import spec_schema, status_schema
from kvloop.operator.types.base import GROUP, VERSION


def definition(kind: Kind) -> dict[str, Any]:
    """As `apiextensions.k8s.io/v1` has it since Kubernetes 1.16."""
    singular = kind.name.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": singular,
                "shortNames": [kind.short],
                "categories": ["kvloop", "all"],
            },
            "versions": [_version(kind)],
        },
    }


def _version(kind: Kind) -> dict[str, Any]:
    scale = {} if kind.scale is None else {"scale": kind.scale}
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _whole(kind)},
        "subresources": {"status": {}, **scale},
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
    }


def _whole(kind: Kind) -> dict[str, Any]:
    rules = validations(kind.resource)
    return {
        "type": "object",
        "description": inspect.getdoc(kind.resource),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this schema."},
            "kind": {"type": "string", "description": "Kind of the resource."},
            "metadata": {"type": "object"},
            "spec": spec_schema(kind.spec),
            "status": status_schema(kind.status),
        },
        **({"x-kubernetes-validations": rules} if rules else {}),
    }


def _column(column: Column) -> dict[str, Any]:
    priority = {"priority": 1} if column.wide else {}
    return {"name": column.name, "type": column.type, "jsonPath": column.path, **priority}

"""Objects that fit a CRD's schema, drawn at random, and what the API server makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from kvloop.operator.types import patterns
from kvloop.operator.types.base import Rule

Schema = dict[str, Any]

_FITTING = {
    patterns.QUANTITY: ["1", "500m", "4Gi", "0.5"],
    patterns.NAME: ["a", "b"],
    patterns.RELATIVE_PATH: ["a", "a/b"],
    patterns.RELATIVE_PATH_OR_NONE: ["", "a"],
    patterns.ABSOLUTE_PATH: ["/a", "/a/b"],
    patterns.URL: ["http://a"],
    patterns.HOST_PORT: ["a:1"],
    patterns.MASTERS: ["a:1", "a:1,b:2", "etcd://a:1"],
    patterns.DEVICE: ["mlx5_0"],
    patterns.CRON: ["* * * * *"],
    patterns.EXTENDED_RESOURCE: ["nvidia.com/gpu", "rdma/a"],
    patterns.LABEL_VALUE: ["", "a"],
    patterns.MODULE: ["a.b"],
}


@st.composite
def objects(draw: st.DrawFn, schema: Schema, names: frozenset[str]) -> dict[str, Any]:
    """With what is required, and any of the optional fields of these names."""
    drawn: dict[str, Any] = {}
    for name, inner in schema.get("properties", {}).items():
        is_needed = name in schema.get("required", ())
        if is_needed or (name in names and draw(st.booleans())):
            drawn[name] = draw(_values(inner, names))
    return drawn


def mentioned(rules: Iterable[Rule]) -> frozenset[str]:
    """Words of the rules: fields, and texts to compare with."""
    texts = [rule.cel for rule in rules if rule.cel]
    return frozenset(word for text in texts for word in re.findall(r"[A-Za-z-][\w-]*", text))


def _values(schema: Schema, names: frozenset[str]) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.sampled_from([1, 1 << 30, *_FITTING[schema["pattern"]]])
    match schema["type"]:
        case "object":
            return _objects(schema, names)
        case "array":
            most = min(schema["maxItems"], 3)
            least = schema.get("minItems", 0)
            return st.lists(_values(schema["items"], names), min_size=least, max_size=most)
        case "boolean":
            return st.booleans()
        case "string":
            return _texts(schema, names)
        case "integer":
            least = schema.get("minimum", 0)
            most = min(schema.get("maximum", least + 300), least + 300)
            return st.integers(least, least + 3) | st.integers(least, most)
        case kind:
            assert kind == "number"
            return st.sampled_from([0.5, 0.25])


def _objects(schema: Schema, names: frozenset[str]) -> st.SearchStrategy[Any]:
    if "additionalProperties" in schema:
        keys = st.sampled_from(["a", "b", *sorted(names)])
        least, most = schema.get("minProperties", 0), 2
        values = _values(schema["additionalProperties"], names)
        return st.dictionaries(keys, values, min_size=least, max_size=most)
    if "properties" not in schema:
        return st.just({})
    return objects(schema, names)


def _texts(schema: Schema, names: frozenset[str]) -> st.SearchStrategy[str]:
    if "pattern" in schema:
        return st.sampled_from(_FITTING[schema["pattern"]])
    least = schema.get("minLength", 0)
    words = ["abc", "abd", "--other", "nvidia.com/gpu", *sorted(names)]
    with_values = [f"{word}=1" for word in names if word.startswith("--")]
    return st.sampled_from(
        [w for w in (*words, *with_values) if least <= len(w) <= schema["maxLength"]]
    )


def defaulted(schema: Schema, value: Any) -> Any:
    """With the defaults of the schema filled in, as the API server does before it asks CEL."""
    if isinstance(value, dict) and "properties" in schema:
        filled = dict(value)
        for name, inner in schema["properties"].items():
            if name not in filled and "default" in inner:
                filled[name] = inner["default"]
            if name in filled:
                filled[name] = defaulted(inner, filled[name])
        return filled
    if isinstance(value, dict) and "additionalProperties" in schema:
        return {name: defaulted(schema["additionalProperties"], one) for name, one in value.items()}
    if isinstance(value, list):
        return [defaulted(schema["items"], one) for one in value]
    return value

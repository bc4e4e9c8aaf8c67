"""What all custom resources are made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from kvloop.operator.types import patterns

GROUP = "kvloop.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


def camel(name: str) -> str:
    """hf3fs and l2_cache_backend become hf3fs and l2CacheBackend."""
    first, *others = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise PydanticCustomError("quantity", "must be a whole number, or text such as 500m or 16Gi")


Quantity = Annotated[
    str,
    Field(
        pattern=patterns.QUANTITY,
        json_schema_extra={"x-kubernetes-int-or-string": True},
    ),
    BeforeValidator(_text),  # behind the pattern, or it is not in the schema
]
"""A Kubernetes quantity, such as 500m or 16Gi; a whole number is understood too."""
Name = Annotated[str, Field(pattern=patterns.NAME, min_length=1, max_length=63)]
"""A DNS label."""
Port = Annotated[int, Field(ge=1, le=65535)]
FreeForm = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
]
"""An object that is handed on as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A relation between fields of one object: once for the API server, once for the operator."""

    cel: str | None
    """In CEL, with `self`; true where the object is right. None: CEL of older clusters cannot say
    it, such as a comparison of quantities; the operator checks it alone."""
    check: Callable[[Any], bool]
    """The same of the parsed object."""
    message: str
    """Names the field, what is wrong, and what would be right."""
    field: str
    """Relative to the object, such as `mooncake.masters.replicas`."""


class Model(BaseModel):
    """A part of a resource: camelCase outside, unknown fields refused, never changed."""

    model_config = ConfigDict(
        alias_generator=camel, populate_by_name=True, extra="forbid", frozen=True
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()


class Status(BaseModel):
    """A part of a status: unknown fields of other versions are ignored."""

    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, frozen=True)


class Condition(Status):
    """As in `metav1.Condition`."""

    type: str = Field(description="What is told, such as Ready.", max_length=316)
    status: str = Field(
        description="True, False, or Unknown where it was not observed.",
        json_schema_extra={"enum": ["True", "False", "Unknown"]},
    )
    reason: str = Field(description="Why, in one word for programs.", max_length=1024)
    message: str = Field(default="", description="Why, for people.", max_length=32768)
    observed_generation: int = Field(default=0, description="Generation that this is about.")
    last_transition_time: str = Field(
        description="When the status changed last.", json_schema_extra={"format": "date-time"}
    )


class Metadata(BaseModel):
    """What the operator reads of `metadata`."""

    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, extra="ignore")

    name: str
    namespace: str
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


NAME_RULE = Rule(
    cel="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && "
    "size(self.metadata.name) <= 36",
    check=lambda r: _is_short_name(r.metadata.name),
    message="metadata.name must be 36 small letters, digits and '-' at most, beginning with a "
    "letter and not ending with '-': Services and pods are named after it",
    field="metadata.name",
)


def _is_short_name(name: str) -> bool:
    return len(name) <= 36 and re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name) is not None


class Resource(Model):
    """What users apply."""

    RULES: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)
    metadata: Metadata


class LocalReference(Model):
    """An object of the same namespace."""

    name: str = Field(description="Its name.", min_length=1, max_length=253)


class KeyReference(Model):
    """A key of a Secret or ConfigMap of the same namespace."""

    name: str = Field(description="Name of the object.", min_length=1, max_length=253)
    key: str = Field(description="Key in it.", min_length=1, max_length=253)

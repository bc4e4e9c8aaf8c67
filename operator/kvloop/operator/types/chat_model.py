"""The model that a PDCluster serves, and where it comes from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kvloop.operator.types import patterns
from kvloop.operator.types.base import KeyReference, Model, Rule


class HuggingFace(Model):
    """A model of a hub."""

    id: str = Field(description="Such as Qwen/Qwen2.5-7B-Instruct.", min_length=1)
    revision: str = Field(default="main", description="Branch, tag or commit.", min_length=1)
    token_secret: KeyReference | None = Field(default=None, description="Token of gated models.")
    cache_claim: str | None = Field(
        default=None, description="Claim that keeps downloads; unset: each pod downloads anew."
    )


class ModelClaim(Model):
    """A model on a persistent volume."""

    claim: str = Field(description="The claim, mounted read-only.", min_length=1)
    path: str = Field(
        default="",
        description="The model's directory in it; empty: the claim's root.",
        pattern=patterns.RELATIVE_PATH_OR_NONE,
    )


class ModelImage(Model):
    """A model that an image brings along."""

    reference: str = Field(description="The image; a shell and cp are needed in it.", min_length=1)
    path: str = Field(
        default="/model", description="The model's directory in it.", pattern=patterns.ABSOLUTE_PATH
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When it is pulled."
    )


class ChatModel(Model):
    """Where the model comes from: exactly one of the four."""

    RULES = (
        Rule(
            cel="[has(self.demo), has(self.huggingFace), has(self.claim), has(self.image)]"
            ".filter(x, x).size() == 1",
            check=lambda m: [m.demo, m.hugging_face, m.claim, m.image].count(None) == 3,
            message="set exactly one of demo, huggingFace, claim and image",
            field="",
        ),
    )
    demo: Literal["smollm2"] | None = Field(
        default=None, description="The small chat model that the node's image holds."
    )
    hugging_face: HuggingFace | None = Field(default=None, description="From a hub.")
    claim: ModelClaim | None = Field(default=None, description="From a persistent volume.")
    image: ModelImage | None = Field(default=None, description="From an image.")
    served_name: str | None = Field(
        default=None, description="Name in the API; unset: made from the above.", min_length=1
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto", description="Type of weights and KV."
    )
    context_length: int | None = Field(
        default=None, description="Tokens; unset: the model's own.", ge=16
    )

"""What a request says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.driver.target import Target

KVLOOP_ARMS: Mapping[Arm, Mapping[str, Any]] = {
    "bypassed": {"kvloop": {"cache": "off"}},
    "l3_only": {"kvloop": {"cache": "l3_only"}},
}
"""Arms that kvloop's request field makes; other servers need --arm-body for them."""


def build_body(
    target: Target, prompt: Any, *, output_length: int, salt: str = "", arm: Arm = "on"
) -> dict[str, Any]:
    """The whole request: token ids, or chat messages. An arm's fields win over the extra ones."""
    is_chat = target.content == "text"
    body = {
        "model": target.model,
        "messages" if is_chat else "prompt": prompt,
        "max_tokens": output_length,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if not is_chat:
        body["return_token_ids"] = True
    if salt and target.salting == "field":
        body["cache_salt"] = salt
    for name in target.dropped_fields:
        body.pop(name, None)
    for more in (target.extra_body, arm_body(target, arm)):
        body = merge(body, more)
    return body


def arm_body(target: Target, arm: Arm) -> Mapping[str, Any]:
    """The fields that make an arm."""
    return target.arm_bodies.get(arm) or KVLOOP_ARMS.get(arm, {})


def merge(body: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more` wins; objects that both have are merged one level deep (`kvloop` holds several)."""
    merged = dict(body)
    for name, value in more.items():
        old = merged.get(name)
        is_object = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = {**old, **value} if is_object else value  # type: ignore[dict-item]
    return merged


def encode(body: Mapping[str, Any]) -> bytes:
    """As JSON."""
    return msgspec.json.encode(body)

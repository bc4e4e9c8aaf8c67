"""Whose replicas a Deployment has, and why its pods are replaced: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kvloop.operator.build.pd_cluster.deployment import TEMPLATE
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.names import REASON, SCALED, SPEC_REPLICAS


def with_live(
    wanted: Manifest, live: Mapping[str, Any] | None, *, scaled: int | None = None
) -> Manifest:
    """The Deployment as it is to be applied.

    Replicas stay as kubectl scale or an autoscaler left them, unless the resource's own number is
    another than it was at the last time; `scaled` is what the operator's own autoscaling wants.
    A number that was read is written only if nobody has written since.
    """
    if live is None:
        return wanted
    metadata = {**wanted["metadata"], "annotations": dict(wanted["metadata"]["annotations"])}
    spec = dict(wanted["spec"])
    before = live["metadata"].get("annotations") or {}
    if before.get(SPEC_REPLICAS) == metadata["annotations"][SPEC_REPLICAS]:
        spec["replicas"] = live["spec"].get("replicas", 1)
        metadata["resourceVersion"] = live["metadata"]["resourceVersion"]
    if scaled is not None:
        spec["replicas"] = scaled
    if before.get(SCALED, "").startswith(f"{spec['replicas']} "):
        metadata["annotations"][SCALED] = before[SCALED]
    reason = why_replaced(wanted, live)
    if reason or REASON in before:
        metadata["annotations"][REASON] = reason or before[REASON]
    return {**wanted, "metadata": metadata, "spec": spec}


def why_replaced(wanted: Manifest, live: Mapping[str, Any]) -> str:
    """What is other in the pods; empty where they stay."""
    before = live["metadata"].get("annotations") or {}
    if before.get(TEMPLATE) == wanted["metadata"]["annotations"][TEMPLATE]:
        return ""
    old, new = live["spec"]["template"], wanted["spec"]["template"]
    return ", ".join(_changes(old, new)) or "settings of the pods"


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    name = new["spec"]["containers"][0]["name"]
    boxes = {one["name"]: one for one in old["spec"]["containers"]}
    before, after = boxes.get(name, {}), new["spec"]["containers"][0]
    if before.get("image") != after.get("image"):
        yield f"image {after.get('image')}"
    yield from _changed_flags(before.get("args") or [], after.get("args") or [])
    for field in ("env", "resources"):
        if _bare(before.get(field)) != _bare(after.get(field)):
            yield field
    there = {one["name"] for one in old["spec"].get("volumes") or ()}
    if there != {one["name"] for one in new["spec"].get("volumes") or ()}:
        yield "volumes"


def _changed_flags(old: list[str], new: list[str]) -> Iterator[str]:
    """Names only: a value may be long."""
    before, after = _pairs(old), _pairs(new)
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name) and name != "--generation":
            yield f"{name} {after.get(name, '(gone)')}".rstrip()


def _pairs(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, found[word] = word, ""
        elif name:
            found[name] = f"{found[name]} {word}".strip()
    return found


def _bare(value: Any) -> Any:
    """Without what the API server adds by itself."""
    if isinstance(value, list):
        return [_bare(one) for one in value]
    if isinstance(value, Mapping):
        return {k: _bare(v) for k, v in value.items() if k != "apiVersion" and v not in ({}, [])}
    return value

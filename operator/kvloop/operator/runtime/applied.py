"""Whether an object is already as it was wanted: pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kvloop.operator.controllers.base import Manifest

APPLIED = "kvloop.dev/applied"
"""Annotation: digest of what was applied last, so that a field left out since is seen."""


def stamped(manifest: Manifest) -> Manifest:
    """With its digest. resourceVersion is no part of that: it only guards one call."""
    metadata = dict(manifest["metadata"])
    annotations = {
        key: text for key, text in (metadata.get("annotations") or {}).items() if key != APPLIED
    }
    core = {key: value for key, value in metadata.items() if key != "resourceVersion"}
    digest = _digest({**manifest, "metadata": {**core, "annotations": annotations}})
    return {**manifest, "metadata": {**metadata, "annotations": {**annotations, APPLIED: digest}}}


def digest_of(manifest: Manifest) -> str | None:
    """None where nobody applied it."""
    found: str | None = (manifest["metadata"].get("annotations") or {}).get(APPLIED)
    return found


def covers(live: Any, wanted: Any) -> bool:
    """Every value wanted is there; more may be there too.

    False where only the writing differs, such as 1000m for 1: one call too many, never too few.
    """
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            _is_empty(value) if key not in live else covers(live[key], value)
            for key, value in wanted.items()
        )
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return _covers_list(live, wanted)
    return bool(live == wanted)


def belongs_to_another(live: Manifest, wanted: Manifest) -> bool:
    """The object of this name is not what was made for this owner."""
    owners = {owner["uid"] for owner in wanted["metadata"].get("ownerReferences", ())}
    there = {owner["uid"] for owner in live["metadata"].get("ownerReferences", ())}
    return bool(owners) and not owners & there


def _covers_list(live: Any, wanted: Sequence[Any]) -> bool:
    """Lists of named objects by name, others item by item."""
    if not isinstance(live, Sequence) or isinstance(live, str):
        return False
    if wanted and all(isinstance(item, Mapping) and "name" in item for item in wanted):
        named = {item.get("name"): item for item in live if isinstance(item, Mapping)}
        return all(item["name"] in named and covers(named[item["name"]], item) for item in wanted)
    return len(live) == len(wanted) and all(
        covers(there, item) for there, item in zip(live, wanted, strict=True)
    )


def _is_empty(value: Any) -> bool:
    """The API server leaves these out."""
    return value is None or (isinstance(value, Sequence | Mapping) and not value)


def _digest(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

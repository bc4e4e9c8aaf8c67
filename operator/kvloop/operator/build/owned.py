"""What the operator makes belongs to the resource it was made for."""

from __future__ import annotations

from typing import Any

from kvloop.operator.types.base import API_VERSION, Metadata


def owned(manifest: dict[str, Any], kind: str, owner: Metadata) -> dict[str, Any]:
    """The manifest in its owner's namespace, to be deleted with it."""
    reference = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    metadata = {
        **manifest["metadata"],
        "namespace": owner.namespace,
        "ownerReferences": [reference],
    }
    return {**manifest, "metadata": metadata}

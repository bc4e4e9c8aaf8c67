"""The Secrets that pods read at start."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from kvloop.operator.attach import attach_document
from kvloop.operator.build.owned import owned
from kvloop.operator.build.pd_cluster.context import SHORT, Context, Keys, attach_name, keys_name
from kvloop.operator.build.pd_cluster.pod import ADMIN_KEY, NODE_SECRET
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.names import labels
from kvloop.operator.types.pd_cluster import PDCluster

ATTACH_KEY = "attach.json"


def build_keys_secret(cluster: PDCluster, keys: Keys) -> Manifest:
    """Made once: who applied it again would change the keys of running nodes."""
    name = cluster.metadata.name
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": keys_name(name),
            "labels": labels(kind=SHORT, name=name, component="cluster"),
        },
        "type": "Opaque",
        "data": _encoded({ADMIN_KEY: keys.admin_key, NODE_SECRET: keys.node_secret}),
    }
    return owned(manifest, "PDCluster", cluster.metadata)


def build_attach_secret(context: Context) -> Manifest:
    """What a pod attaches when it starts: the body of the admin API's PUT."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": attach_name(context.name),
            "labels": context.labels("cluster"),
        },
        "type": "Opaque",
        "data": _encoded(
            {ATTACH_KEY: json.dumps(attach_document(context.attached), sort_keys=True)}
        ),
    }


def _encoded(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}

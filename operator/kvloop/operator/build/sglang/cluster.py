"""All that is made for one PDCluster of engine sglang: pure."""

from __future__ import annotations

from kvloop.operator.build.pd_cluster.context import Context
from kvloop.operator.build.pd_cluster.services import build_account, build_service
from kvloop.operator.build.sglang.node import build_node, files_name
from kvloop.operator.build.sglang.router import build_rights, build_router
from kvloop.operator.controllers.base import Manifest


def build_sglang(context: Context) -> list[Manifest]:
    """In the order of applying, without owners."""
    return [
        build_account(context),
        *build_rights(context),
        *_files(context),
        build_service(context),
        build_node(context, "prefill"),
        build_node(context, "decode"),
        build_router(context),
    ]


def _files(context: Context) -> list[Manifest]:
    storage = context.storage
    if storage is None or not storage.files:
        return []
    metadata = {"name": files_name(context.name), "labels": context.labels("cluster")}
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": dict(storage.files),
        }
    ]

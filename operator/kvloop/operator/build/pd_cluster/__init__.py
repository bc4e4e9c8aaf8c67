"""All that is made for one PDCluster: pure."""

from __future__ import annotations

from collections.abc import Mapping

from kvloop.operator.build.owned import owned
from kvloop.operator.build.pd_cluster.context import Context, Keys, context_of
from kvloop.operator.build.pd_cluster.node import build_node
from kvloop.operator.build.pd_cluster.router import build_router
from kvloop.operator.build.pd_cluster.secrets import build_attach_secret, build_keys_secret
from kvloop.operator.build.pd_cluster.services import build_account, build_peers, build_service
from kvloop.operator.connection import Connection
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.settings import Settings
from kvloop.operator.types.pd_cluster import PDCluster

__all__ = ["Context", "Keys", "build_keys_secret", "build_pd_cluster", "context_of"]

KIND = "PDCluster"


def build_pd_cluster(
    cluster: PDCluster, connections: Mapping[str, Connection], keys: Keys, settings: Settings
) -> list[Manifest]:
    """In the order of applying; the Secret of keys apart, which is made once and never again.

    `connections`: of all attachable SharedCaches by name, secrets filled in. ConnectError where
    they cannot be in one pod.
    """
    context = context_of(cluster, connections, keys, settings)
    if cluster.spec.engine == "sglang":
        from kvloop.operator.build.sglang.cluster import build_sglang  # which imports from here

        manifests = build_sglang(context)
    else:
        manifests = _build_kvloop(context)
    return [owned(manifest, KIND, cluster.metadata) for manifest in manifests]


def _build_kvloop(context: Context) -> list[Manifest]:
    return [
        build_account(context),
        build_attach_secret(context),
        build_peers(context),
        build_service(context),
        build_node(context, "prefill"),
        build_node(context, "decode"),
        build_router(context),
    ]

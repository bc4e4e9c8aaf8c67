"""PDClusters of engine sglang for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pd_clusters import built, cluster, container_of

from kvloop.operator.connection import Connection
from kvloop.operator.types.pd_cluster import PDCluster

MOONCAKE = Connection(
    cache="c",
    backend="mooncake",
    extra_config={
        "master_server_address": "c-master.ns.svc:50051",
        "local_hostname": "${POD_IP}",
        "protocol": "tcp",
        "replica_num": 1,
    },
)


def sglang(**spec: Any) -> PDCluster:
    """Of a model on a claim."""
    return cluster(**({"engine": "sglang", "model": {"claim": {"claim": "m"}}} | spec))


def arguments(wanted: PDCluster, role: str, connections: Sequence[Connection] = ()) -> list[str]:
    """Words behind the module's name."""
    box = container_of(built(wanted, connections), role)
    return [str(word) for word in box["args"]]

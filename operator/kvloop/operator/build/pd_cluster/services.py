"""Names in the network, and the pods' account."""

from __future__ import annotations

from kvloop.operator.build.pd_cluster.context import Context, peers_name
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.names import ROUTER_PORT, selector


def build_service(context: Context) -> Manifest:
    """Where clients call: routers that are ready."""
    router, wanted = context.spec.router, context.labels("router")
    port = {"name": "http", "port": router.port, "targetPort": "http", "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": context.name, "labels": wanted},
        "spec": {"type": router.service_type, "selector": selector(wanted), "ports": [port]},
    }


def build_peers(context: Context) -> Manifest:
    """By which nodes find every router pod; also one that waits for them to become ready."""
    wanted = context.labels("router")
    port = {"name": "http", "port": ROUTER_PORT, "targetPort": "http", "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": peers_name(context.name), "labels": wanted},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(wanted),
            "ports": [port],
        },
    }


def build_account(context: Context) -> Manifest:
    """The pods call no API: no token, no rights."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": context.name, "labels": context.labels("cluster")},
        "automountServiceAccountToken": False,
    }
